"""The engine's arguments as command-line flags, for every command that starts an engine.

The flags are made from `EngineConfig`'s own fields: name, default and type come from there, only the help is written
here. A command gets them by a decorator and makes its `EngineConfig` of what was given.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

import typer

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError

PANEL = "Engine"

_HELP = {
    "tokenizer": "A directory or .gguf file with another tokenizer than the model's own.",
    "revision": "Branch, tag or commit of a hub model.",
    "download_dir": "Where hub models are kept, if not in the Hugging Face cache.",
    "hf_token": "Token for gated hub models; by default HF_TOKEN or the login.",
    "dtype": "auto, float32, bfloat16 or float16. auto is what the checkpoint has.",
    "quantization": "none, auto, int8 or int4, done while the weights load.",
    "device": "auto, cpu or cuda.",
    "max_model_len": "Longest context in tokens: a number, 4k (4,000), 4K (4,096), or auto for the longest that fits.",
    "max_num_seqs": "Most sequences that run at once.",
    "max_num_batched_tokens": "Most tokens in one step.",
    "block_size": "Tokens in a block of the KV cache: 8, 16, 32, 64 or 128.",
    "gpu_memory_utilization": "Share of the device's memory that may be used.",
    "kv_cache_memory_bytes": "Bytes for the KV cache: a number, or 2g (2e9), 2G (2 GiB).",
    "num_gpu_blocks_override": "Blocks of KV cache, instead of what memory allows.",
    "enable_prefix_caching": "Reuse the KV cache of equal prompt beginnings.",
    "enable_chunked_prefill": "Split long prompts over several steps.",
    "scheduling_policy": "fcfs (first come, first served) or priority.",
    "max_logprobs": "Most logprobs a request may ask for; -1 for the whole vocabulary.",
    "seed": "Where requests without a seed of their own draw from.",
    "enforce_eager": "Do not use CUDA graphs.",
    "chat_template": "A file with a chat template, or the template itself.",
    "generation_config": "auto for the model's own sampling defaults, vllm for none, or a directory.",
    "tensor_parallel_size": "Number of devices; 1 for now.",
    "load_format": "auto, safetensors or gguf.",
}
_HARMLESS = ("disable_log_stats", "disable_log_requests", "use_v2_block_manager", "disable_custom_all_reduce")
_SIZES = ("max_model_len", "kv_cache_memory_bytes", "max_num_batched_tokens", "num_gpu_blocks_override")
_ELSEWHERE = ("model", "served_model_name")
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30, "": 1}


def with_engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all engine flags. Its parameter `engine` becomes a dict of the arguments that were given.

    The command passes them to `engine_config`, so that it can add its own (the model's name) first.
    """
    own = [each for each in inspect.signature(command).parameters.values() if each.name != "engine"]
    flags = _flags()

    def run(**arguments: Any) -> None:
        engine = {flag.name: arguments.pop(flag.name) for flag in flags}
        command(**arguments, engine={name: value for name, value in engine.items() if value is not None})

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {each.name: each.annotation for each in [*own, *flags]}
    return run


def engine_config(engine: dict[str, object], **more: object) -> EngineConfig:
    """The configuration for the flags that were given. Raises `HeadraceError` for a wrong one."""
    sized = {name: parse_size(name, value) if name in _SIZES else value for name, value in engine.items()}
    return EngineConfig.from_kwargs(**sized, **{name: value for name, value in more.items() if value is not None})


def parse_size(name: str, value: object) -> int | str:
    """A number with an optional unit, as vLLM reads it: 1k is 1,000 and 1K is 1,024; "auto" and -1 stay."""
    text = str(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text)
    if match is not None:
        return int(float(match[1]) * _UNITS[match[2]]) if match[2] or "." in match[1] else int(match[1])
    if name == "max_model_len" and text in ("auto", "-1"):
        return "auto"
    raise HeadraceError(
        f"--{name.replace('_', '-')} is {text!r}",
        rule="It must be a number, with k, m or g for thousands (K, M, G for 1,024s) if you like",
        fix="For example 4096, 4k or 4K" + (", or auto" if name == "max_model_len" else ""),
        param=name,
    )


def _flags() -> list[inspect.Parameter]:
    known = [_flag(each.name, each.default) for each in fields(EngineConfig) if each.name not in _ELSEWHERE]
    return known + [_harmless(name) for name in _HARMLESS]


def _flag(name: str, default: object) -> inspect.Parameter:
    """None stands for "not given", so that the default lives in `EngineConfig` alone."""
    dashed = name.replace("_", "-")
    shown = "" if default in (None, "auto") else f" [default: {default}]"
    spelling = f"--{dashed}/--no-{dashed}" if isinstance(default, bool) else f"--{dashed}"
    kind: Any = str if name in _SIZES or default is None else type(default)
    option = typer.Option(spelling, help=_HELP[name] + shown, rich_help_panel=PANEL, show_default=False)
    return _parameter(name, Annotated[kind | None, option])


def _harmless(name: str) -> inspect.Parameter:
    return _parameter(name, Annotated[bool | None, typer.Option(f"--{name.replace('_', '-')}", hidden=True)])


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
