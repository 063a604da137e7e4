"""Headrace: an LLM serving system from a notebook cell to a fleet. Public names are resolved when first used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.core.errors import HeadraceError
    from headrace.core.outputs import CompletionOutput, RequestOutput
    from headrace.core.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
    from headrace.engine.async_llm import AsyncLLM
    from headrace.engine.llm import LLM

__version__ = "0.1.0"

_HOMES = {
    "LLM": "headrace.engine.llm",
    "AsyncLLM": "headrace.engine.async_llm",
    "SamplingParams": "headrace.core.sampling_params",
    "BeamSearchParams": "headrace.core.sampling_params",
    "RequestOutputKind": "headrace.core.sampling_params",
    "RequestOutput": "headrace.core.outputs",
    "CompletionOutput": "headrace.core.outputs",
    "HeadraceError": "headrace.core.errors",
}

__all__ = [
    "LLM",
    "AsyncLLM",
    "BeamSearchParams",
    "CompletionOutput",
    "HeadraceError",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
