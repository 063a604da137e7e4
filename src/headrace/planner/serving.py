"""How a model is to be served: what memory depends on beside the model, by the engine's own names and defaults."""

from dataclasses import dataclass
from typing import Final

from headrace.core.config import BLOCK_SIZES
from headrace.core.errors import HeadraceError
from headrace.planner.facts import ModelFacts
from headrace.planner.formats import FLOAT_BITS, WeightScheme

KV_DTYPES: Final = {"auto": None, "float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
"""Name of a KV cache's dtype -> bytes of an element; None is that of the activations."""

DEFAULT_BATCHED_TOKENS: Final = {"cpu": 512, "cuda": 8192}
"""Kind of device -> tokens computed in one step, unless more sequences than that may run."""

_MAX_TOKENS = 1_000_000_000
_MAX_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class LoraSlots:
    """Adapters that are on the GPU at once, all padded to one rank."""

    num_slots: int
    rank: int


@dataclass(frozen=True, slots=True)
class Serving:
    """Sizes in tokens, counts, bytes or shares. `scheme` None keeps the checkpoint's own form of weights.

    `max_model_len` None is the model's longest, or what fits of it. Where a GPU lacks the dtype another takes its
    place, unless `dtype_is_asked`. Raises `HeadraceError` for what cannot be.
    """

    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 32
    dtype: str = "bfloat16"
    dtype_is_asked: bool = False
    scheme: WeightScheme | None = None
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    enforce_eager: bool = False
    lora: LoraSlots | None = None
    draft: ModelFacts | None = None

    def __post_init__(self) -> None:
        for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "tensor_parallel_size"):
            check_count(name, getattr(self, name))
        check_count("num_gpu_blocks_override", self.num_gpu_blocks_override)
        check_count("kv_cache_memory_bytes", self.kv_cache_memory_bytes, _MAX_BYTES)
        if self.block_size not in BLOCK_SIZES:
            sizes = ", ".join(map(str, BLOCK_SIZES))
            raise _wrong("block_size", self.block_size, f"It must be one of {sizes}", "Leave it out for the default")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise _too_few_tokens(self.max_num_batched_tokens, self.max_num_seqs)
        if self.lora is not None:
            check_count("max_loras", self.lora.num_slots)
            check_count("max_lora_rank", self.lora.rank)
        if not 0 < self.gpu_memory_utilization <= 1:
            share, rule = self.gpu_memory_utilization, "It is a share of the GPU's memory, above 0 and at most 1"
            raise _wrong("gpu_memory_utilization", share, rule, "Use for example 0.9")
        for name, value, known in (
            ("dtype", self.dtype, FLOAT_BITS),
            ("kv_cache_dtype", self.kv_cache_dtype, KV_DTYPES),
        ):
            if value not in known:
                raise _wrong(name, value, f"It must be one of {', '.join(known)}", "Leave it out for the default")

    @property
    def kv_asked_for(self) -> bool:
        """Whether the size of the KV cache was named, so that it is neither bounded nor stretched."""
        return self.kv_cache_memory_bytes is not None or self.num_gpu_blocks_override is not None

    @property
    def dtype_bytes(self) -> int:
        """Bytes of an element of the activations."""
        return FLOAT_BITS[self.dtype] // 8

    @property
    def kv_bytes(self) -> int:
        """Bytes of an element of keys and values."""
        return KV_DTYPES[self.kv_cache_dtype] or self.dtype_bytes


def default_batched_tokens(kind: str, max_num_seqs: int) -> int:
    """Tokens in one step on a "cpu" or on "cuda" when nobody said: at least one for each sequence."""
    return max(DEFAULT_BATCHED_TOKENS[kind], max_num_seqs)


def check_count(name: str, value: object, most: int = _MAX_TOKENS) -> None:
    """Raise `HeadraceError` for a count or a length that is negative, zero or absurd. None is left for the default."""
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise _wrong(name, value, f"It must be an integer from 1 to {most:,}", "Leave it out for the default")


def _too_few_tokens(tokens: int, sequences: int) -> HeadraceError:
    return HeadraceError(
        f"max_num_batched_tokens is {tokens} and max_num_seqs is {sequences}",
        rule="Every running sequence gets one token a step, so the step must hold max_num_seqs tokens",
        fix=f"Use --max-num-batched-tokens {sequences} or more, or fewer sequences",
        param="max_num_batched_tokens",
    )


def _wrong(name: str, value: object, rule: str, fix: str) -> HeadraceError:
    return HeadraceError(f"{name} is {value!r}", rule=rule, fix=fix, param=name)
