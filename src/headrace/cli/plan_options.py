"""How the model is to be served, as flags of `headrace plan`: names and defaults are those of `Serving`."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.engine_options import ENGINE_PANEL, MODEL_PANEL, parse_size
from headrace.cli.flags import Command, flag_parameter, with_flags

if TYPE_CHECKING:
    from headrace.planner.facts import ModelFacts
    from headrace.planner.serving import LoraSlots, Serving

_FLAGS: Mapping[str, tuple[type, str, str]] = {
    "max_model_len": (
        str,
        ENGINE_PANEL,
        "Longest context in tokens: a number, 4k (4,000), 4K (4,096); else what fits.",
    ),
    "max_num_seqs": (int, ENGINE_PANEL, "Most answers in the making at once [default: 256]."),
    "max_num_batched_tokens": (str, ENGINE_PANEL, "Most tokens computed in one step [default: 8192; 512 on a CPU]."),
    "block_size": (int, ENGINE_PANEL, "Tokens in a block of the cache [default: 32]."),
    "gpu_memory_utilization": (float, ENGINE_PANEL, "Share of the GPU's memory that may be used [default: 0.9]."),
    "kv_cache_memory_bytes": (str, ENGINE_PANEL, "Memory for the KV cache: a number, or 2g (2e9), 2G (2 GiB)."),
    "num_gpu_blocks_override": (str, ENGINE_PANEL, "Blocks in the cache, instead of what memory allows."),
    "tensor_parallel_size": (int, ENGINE_PANEL, "GPUs to spread the model over; else 1 --gpu, or the fewest."),
    "enforce_eager": (bool, ENGINE_PANEL, "Without CUDA graphs."),
    "kv_cache_dtype": (str, ENGINE_PANEL, "auto (as the activations), float16, bfloat16 or fp8."),
    "dtype": (str, MODEL_PANEL, "auto (as the checkpoint has it), float32, bfloat16 or float16."),
    "quantization": (str, MODEL_PANEL, "int8, int4, fp8, awq, gptq or a GGUF type as q4_k; else the checkpoint's."),
    "max_loras": (int, MODEL_PANEL, "LoRA adapters on the GPU at once."),
    "max_lora_rank": (int, MODEL_PANEL, "Their largest rank [default: 16]."),
    "draft_model": (str, MODEL_PANEL, "A small model for speculative decoding, named as MODEL is."),
}
_SHORT = {"tensor_parallel_size": ("-tp",)}
_SIZES = ("max_model_len", "max_num_batched_tokens", "kv_cache_memory_bytes", "num_gpu_blocks_override")
_OWN = ("dtype", "quantization", "max_loras", "max_lora_rank", "draft_model")
_COMPUTED = ("float32", "bfloat16", "float16")


def with_serving_options(command: Command) -> Command:
    """Give a command the flags, but for those that it has itself.

    Its parameter `serving` becomes a dict of those that were given, for `serving_of`.
    """
    own = inspect.signature(command).parameters
    return with_flags(command, "serving", [_flag(name) for name in _FLAGS if name not in own], dict)


def serving_of(given: Mapping[str, Any], facts: "ModelFacts", kind: str = "cuda") -> "Serving":
    """The flags as a `Serving` of a model, on "cuda" or on a "cpu". Raises `HeadraceError` for a wrong one."""
    from headrace.cli.plan_model import find_facts
    from headrace.planner.formats import scheme_named
    from headrace.planner.serving import Serving, check_count, default_batched_tokens

    check_count("max_num_seqs", given.get("max_num_seqs"))
    sized = {name: parse_size(name, given[name]) for name in _SIZES if name in given}
    plain = {name: value for name, value in {**given, **sized}.items() if name not in _OWN and value != "auto"}
    plain.setdefault(
        "max_num_batched_tokens", default_batched_tokens(kind, given.get("max_num_seqs", Serving().max_num_seqs))
    )
    dtype = _dtype(given.get("dtype", "auto"), facts.outline.dtype)
    quantization, draft = given.get("quantization"), given.get("draft_model")
    return Serving(
        **plain,
        dtype=dtype,
        dtype_is_asked=given.get("dtype", "auto") != "auto",
        scheme=None if quantization is None else scheme_named(quantization, dtype),
        lora=_lora(given),
        draft=None if draft is None else find_facts(draft),
    )


def _dtype(asked: str, own: str) -> str:
    """The dtype of activations: under "auto" the checkpoint's, or bfloat16 where that is none to compute in."""
    if asked != "auto":
        return asked
    return own if own in _COMPUTED else "bfloat16"


def _lora(given: Mapping[str, Any]) -> "LoraSlots | None":
    from headrace.planner.serving import LoraSlots

    return LoraSlots(given["max_loras"], given.get("max_lora_rank", 16)) if given.get("max_loras") else None


def _flag(name: str) -> inspect.Parameter:
    kind, panel, text = _FLAGS[name]
    spellings = (f"--{name.replace('_', '-')}", *_SHORT.get(name, ()))
    option = typer.Option(*spellings, help=text, rich_help_panel=panel, show_default=False)
    return flag_parameter(name, Annotated[kind | None, option])
