"""The engine's arguments as command-line flags, for every command that starts an engine.

The flags are made from `EngineConfig`'s own fields: name, default and type come from there, only the help is written
here. A command gets them by a decorator and makes its `EngineConfig` of what was given.
"""

import inspect
import re
from dataclasses import fields
from typing import Annotated, Any

import typer

from headrace.cli.flags import Command, flag_parameter, with_flags
from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError

MODEL_PANEL, ENGINE_PANEL = "Model", "Engine: memory and speed"

_HELP = {
    "tokenizer": "Directory or .gguf file to take the tokenizer from, instead of the model's.",
    "revision": "Branch, tag or commit of a hub model.",
    "download_dir": "Where hub models are kept, if not in the Hugging Face cache.",
    "hf_token": "Token for gated hub models; by default HF_TOKEN or the login.",
    "dtype": "Number format of weights and cache: auto (as the checkpoint has it), float32, bfloat16 or float16.",
    "quantization": "Smaller weights: int8 or int4, made while loading; none; auto keeps a GGUF's own.",
    "device": "Where the model runs: auto, cpu, cuda or cuda:N (its number, from 0).",
    "max_model_len": "Longest context in tokens: a number, 4k (4,000), 4K (4,096), or auto for the longest that fits.",
    "max_num_seqs": "Most answers in the making at once.",
    "max_num_batched_tokens": "Most tokens computed in one step: more for throughput, less for smooth streams.",
    "block_size": "Tokens in a block of the cache: 8, 16, 32, 64 or 128.",
    "gpu_memory_utilization": "Share of the device's memory that may be used.",
    "kv_cache_memory_bytes": "Memory for the cache of running requests (KV cache): a number, or 2g (2e9), 2G (2 GiB).",
    "num_gpu_blocks_override": "Blocks in the cache, instead of what memory allows.",
    "enable_prefix_caching": "Compute equal beginnings of prompts once.",
    "enable_chunked_prefill": "Split long prompts over several steps, so that streams go on meanwhile.",
    "scheduling_policy": "Who is next: fcfs (first come, first served) or priority (a request's own field).",
    "max_logprobs": "Most log probabilities a position that a request may ask for; -1: any number.",
    "seed": "Seed for requests that bring none.",
    "enforce_eager": "Do not use CUDA graphs.",
    "chat_template": "A file with a chat template, or the template itself.",
    "generation_config": "auto for the model's own sampling defaults, vllm for none, or a directory.",
    "tensor_parallel_size": "Devices to spread the model over; only 1 so far.",
    "load_format": "Kind of weight file: auto, safetensors or gguf; dummy makes the weights up, to try out speed.",
    "preset": "Arguments that go together, where they are not given: notebook (a T4 that is shared, a quick start).",
    "kv_cache_dtype": "Number format of the cache: auto (as the activations), or fp8 (fp8_e4m3) for twice the tokens.",
}
_OF_THE_MODEL = (
    "tokenizer",
    "revision",
    "download_dir",
    "hf_token",
    "dtype",
    "quantization",
    "max_model_len",
    "max_logprobs",
    "seed",
    "chat_template",
    "generation_config",
    "load_format",
)
"""What is about the model and its answers; the rest is about how it runs."""
_HARMLESS = ("disable_log_stats", "disable_log_requests", "use_v2_block_manager", "disable_custom_all_reduce")
_SIZES = ("max_model_len", "kv_cache_memory_bytes", "max_num_batched_tokens", "num_gpu_blocks_override")
_ELSEWHERE = ("model", "served_model_name", "skip_tokenizer_init")
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30, "": 1}


def with_engine_options(command: Command) -> Command:
    """Give a command all engine flags. Its parameter `engine` becomes a dict of the arguments that were given.

    The command passes them to `engine_config`, so that it can add its own (the model's name) first.
    """
    return with_flags(command, "engine", _flags(), dict)


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
        rule="It must be a number above 0, with k, m or g for thousands (K, M, G for 1,024s) if you like",
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
    panel = MODEL_PANEL if name in _OF_THE_MODEL else ENGINE_PANEL
    option = typer.Option(spelling, help=_HELP[name] + shown, rich_help_panel=panel, show_default=False)
    return flag_parameter(name, Annotated[kind | None, option])


def _harmless(name: str) -> inspect.Parameter:
    return flag_parameter(name, Annotated[bool | None, typer.Option(f"--{name.replace('_', '-')}", hidden=True)])
