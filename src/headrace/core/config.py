"""The engine's configuration: vLLM's argument names, checked once, frozen after.

`EngineConfig.from_kwargs` is what `LLM(...)`, `AsyncLLM(...)` and the command line all go through, so that a name is
known, refused or unknown in the same words everywhere.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from headrace.core.errors import HeadraceError, not_yet
from headrace.core.presets import preset_named

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "auto", "int8", "int4"]
LoadFormat = Literal["auto", "safetensors", "gguf", "dummy"]
KvCacheDtype = Literal["auto", "fp8", "fp8_e4m3"]

BLOCK_SIZES = (8, 16, 32, 64, 128)
"""Tokens in a block of the KV cache, as the kernels know them."""

EMBEDDED_MODEL = "smollm2-135m-instruct"
"""The model that is served when none is named."""

_DTYPE_ALIASES = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

_REFUSED = {
    "speculative_config": "Leave it out: speculative decoding is not built yet",
    "speculative_model": "Leave it out: speculative decoding is not built yet",
    "enable_lora": "Serve the base model, or merge the adapter into it with peft's merge_and_unload",
    "lora_modules": "Serve the base model, or merge the adapter into it with peft's merge_and_unload",
    "max_lora_rank": "Leave it out: adapters are not served yet",
    "num_speculative_tokens": "Leave it out: speculative decoding is not built yet",
    "kv_transfer_config": "Leave it out",
    "cpu_offload_gb": "Use a smaller model or quantization='int8'",
    "swap_space": "Leave it out: preempted requests are recomputed, nothing is swapped",
    "hf_overrides": "Edit config.json in a copy of the model directory",
    "trust_remote_code": "Leave it out: no code from a model repository is ever run",
    "structured_outputs_config": "Leave it out: grammars are not built yet",
    "enable_sleep_mode": "Leave it out: end the engine and start a new one later",
}
_IGNORED = ("disable_log_stats", "disable_log_requests", "use_v2_block_manager", "disable_custom_all_reduce")
_TEXTS = ("model", "tokenizer", "revision", "download_dir", "hf_token", "served_model_name", "chat_template")
_LEAVE_OUT = "Leave it out for the default"
_NEUTRAL = {
    "tokenizer_mode": "auto",
    "runner": "generate",
    "task": "generate",
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "max_loras": 1,
}
"""Arguments of vLLM that are accepted with the one value that asks for nothing."""


def names_not_served() -> set[str]:
    """The arguments of vLLM that are known by name and not served, or with one value only."""
    return {*_REFUSED, *_NEUTRAL}


def instead_of(name: str) -> str | None:
    """What to do instead of giving the argument `name` of vLLM's, if it is known and not served; else None."""
    return _LEAVE_OUT if name in _NEUTRAL else _REFUSED.get(name)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an engine is built from. `None` means "chosen by the engine"; sizes are in tokens, bytes or counts.

    `max_model_len` "auto" takes the longest context that fits. `block_size` is the tokens of one KV block.
    `quantization` "auto" keeps a GGUF's own 4-bit groups where a kernel computes with them, with an int8 head.
    `kv_cache_dtype` "auto" is the dtype of the activations. `load_format` "dummy" makes up, by `seed`, the weights of
    the model that a config.json describes. `skip_tokenizer_init`: prompts are token ids, and answers have no text.
    `preset` names arguments that go together (`core/presets.py`), for those that are not given.
    """

    model: str = EMBEDDED_MODEL
    tokenizer: str | None = None
    revision: str | None = None
    download_dir: str | None = None
    hf_token: str | None = None
    served_model_name: str | None = None
    dtype: Dtype = "auto"
    quantization: Quantization = "auto"
    device: str = "auto"
    max_model_len: int | Literal["auto"] | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    block_size: int = 32
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    max_logprobs: int = 20
    seed: int = 0
    enforce_eager: bool = False
    chat_template: str | None = None
    generation_config: str = "auto"
    tensor_parallel_size: int = 1
    load_format: LoadFormat = "auto"
    kv_cache_dtype: KvCacheDtype = "auto"
    skip_tokenizer_init: bool = False
    preset: str | None = None

    def __post_init__(self) -> None:
        _choice("dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        _choice("quantization", self.quantization, ("none", "auto", "int8", "int4"))
        _choice("scheduling_policy", self.scheduling_policy, ("fcfs", "priority"))
        _choice("load_format", self.load_format, get_args(LoadFormat))
        _choice("kv_cache_dtype", self.kv_cache_dtype, get_args(KvCacheDtype))
        for name in ("max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes", "num_gpu_blocks_override"):
            _positive(name, getattr(self, name))
        if self.max_model_len not in (None, "auto"):
            _at_least("max_model_len", self.max_model_len, 2)
        if self.block_size not in BLOCK_SIZES:
            raise HeadraceError(
                f"block_size is {self.block_size!r}",
                rule="It must be 8, 16, 32, 64 or 128",
                fix=_LEAVE_OUT,
                param="block_size",
            )
        for name in ("enable_prefix_caching", "enable_chunked_prefill", "enforce_eager", "skip_tokenizer_init"):
            _choice(name, getattr(self, name), (True, False))
        for name in _TEXTS:
            _check_text(name, getattr(self, name))
        _at_least("seed", self.seed, None)
        _at_least("max_logprobs", self.max_logprobs, -1)
        _check_device(self.device)
        if self.preset is not None:
            preset_named(self.preset)
        share = self.gpu_memory_utilization
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise HeadraceError(
                f"gpu_memory_utilization is {share!r}",
                rule="It is the share of the device's memory that may be used, above 0 and at most 1",
                fix="Use for example 0.9",
                param="gpu_memory_utilization",
            )

    @classmethod
    def from_kwargs(cls, **kwargs: object) -> "EngineConfig":
        """Build from vLLM's keyword arguments. Raises `HeadraceError` for one that is unknown or not served."""
        known = {field.name for field in fields(cls)}
        clean: dict[str, object] = {}
        for name, value in _translate(kwargs).items():
            if name in known:
                clean[name] = value
            elif name not in _IGNORED and not _asks_for_nothing(name, value):
                raise _refusal(name, value, known)
        _refuse_parallel(clean.get("tensor_parallel_size", 1))
        if "preset" in clean:
            clean = preset_named(clean["preset"]).completed(clean)
        return cls(**clean)  # type: ignore[arg-type]  # __post_init__ checks each value


def _translate(kwargs: Mapping[str, object]) -> dict[str, object]:
    """Map the old and the aliased spellings to today's."""
    clean = dict(kwargs)
    if clean.get("speculative_model"):
        clean["speculative_config"] = {
            "model": clean.pop("speculative_model"),
            "num_speculative_tokens": clean.pop("num_speculative_tokens", None),
        }
    dtype = str(clean.get("dtype", "auto")).removeprefix("torch.")
    clean["dtype"] = _DTYPE_ALIASES.get(dtype, dtype)
    if clean.get("quantization", "auto") is None:
        clean["quantization"] = "auto"
    if clean.get("max_model_len") == -1:
        clean["max_model_len"] = "auto"
    return {name: value for name, value in clean.items() if value is not None or name == "quantization"}


def _asks_for_nothing(name: str, value: object) -> bool:
    return value in (None, False, 0) if name in _REFUSED else name in _NEUTRAL and value == _NEUTRAL[name]


def _refusal(name: str, value: object, known: set[str]) -> HeadraceError:
    if name in _NEUTRAL:
        return not_yet(f"{name}={value!r}", f"Leave it out, or use {_NEUTRAL[name]!r}", param=name)
    if name in _REFUSED:
        return not_yet(f"{name}={value!r}", _REFUSED[name], param=name)
    close = difflib.get_close_matches(name, known, n=1)
    fix = f"Did you mean {close[0]}?" if close else "See `headrace serve --help` for the arguments"
    return HeadraceError(f"{name} is not an argument of the engine", fix=fix, param=name)


def _refuse_parallel(size: object) -> None:
    if size != 1:
        gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
        raise not_yet(
            f"tensor_parallel_size={size} (this machine shows {gpus} GPUs)",
            "Use tensor_parallel_size=1 on one device, and quantization='int8' if the model does not fit it",
            param="tensor_parallel_size",
        )


_METHODS_TO_COME = ("awq", "gptq", "awq_marlin", "gptq_marlin", "bitsandbytes", "fp8", "compressed-tensors", "torchao")


def _choice(name: str, value: object, choices: tuple[str | bool, ...]) -> None:
    if isinstance(value, type(choices[0])) and value in choices:
        return
    if name == "quantization" and value in _METHODS_TO_COME:
        raise HeadraceError(
            f"quantization={value!r} is not supported yet",
            rule=f"{value} weights must be in the checkpoint, and reading them is not built",
            fix="Use quantization='int8' on the unquantized model; it is quantized while it loads",
            param=name,
        )
    raise HeadraceError(
        f"{name} is {value!r}", rule=f"It must be one of {', '.join(map(str, choices))}", fix=_LEAVE_OUT, param=name
    )


def _positive(name: str, value: object) -> None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return
    raise HeadraceError(f"{name} is {value!r}", rule="It must be a positive integer", fix=_LEAVE_OUT, param=name)


def _at_least(name: str, value: object, low: int | None) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and (low is None or value >= low):
        return
    rule = "It must be an integer" if low is None else f"It must be an integer of at least {low}"
    raise HeadraceError(f"{name} is {value!r}", rule=rule, fix=_LEAVE_OUT, param=name)


def _check_text(name: str, value: object) -> None:
    if (isinstance(value, str) and value) or (value is None and name != "model"):
        return
    raise HeadraceError(f"{name} is {value!r}", rule="It must be a string that is not empty", param=name)


def _check_device(device: object) -> None:
    kind, _, index = str(device).partition(":")
    if device in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isdigit()):
        return
    raise HeadraceError(f"device is {device!r}", rule="It must be auto, cpu, cuda or cuda:N", param="device")
