"""In which dtype a model computes, and keeps keys and values."""

import torch

from headrace.core.config import Dtype, KvCacheDtype
from headrace.core.errors import HeadraceError
from headrace.kernels.cache_dtype import FP8
from headrace.planner.shape import ModelShape
from headrace.store.files import WeightKind


def resolve_dtype(requested: Dtype, shape: ModelShape, kind: WeightKind, old_gpu: str | None = None) -> torch.dtype:
    """The dtype of activations, and of the weights that are not quantized.

    `old_gpu` names a GPU without bfloat16. "auto" is the checkpoint's own, float16 on such a GPU. A float16 GGUF is
    computed in bfloat16: such files are made of models whose activations may exceed the range of float16. Raises
    `HeadraceError` for bfloat16 on a device without it.
    """
    dtype: torch.dtype = getattr(torch, _own(shape, kind) if requested == "auto" else requested)
    if dtype != torch.bfloat16 or old_gpu is None:
        return dtype
    if requested == "auto":
        return torch.float16
    raise HeadraceError(
        f"dtype is bfloat16, which {old_gpu} cannot compute with",
        rule="bfloat16 needs a GPU of compute capability 8.0 or more",
        fix="Use dtype='float16', or 'auto'",
        param="dtype",
    )


def narrower_range(requested: Dtype, shape: ModelShape, kind: WeightKind, dtype: torch.dtype) -> list[str]:
    """A warning, if `dtype` was not asked for and activations that the model was made with may exceed it."""
    if requested != "auto" or dtype == getattr(torch, _own(shape, kind)):
        return []
    return [f"this GPU has no bfloat16: computing in {str(dtype).removeprefix('torch.')}, whose range is smaller"]


def _own(shape: ModelShape, kind: WeightKind) -> str:
    return "bfloat16" if kind == "gguf" and shape.dtype == "float16" else shape.dtype


def resolve_kv_dtype(requested: KvCacheDtype, dtype: torch.dtype, without_fp8: str | None = None) -> torch.dtype:
    """The dtype of the cache for activations of `dtype`. `without_fp8` names a device whose kernels have no fp8.

    Raises `HeadraceError` for fp8 on such a device.
    """
    if requested == "auto":
        return dtype
    if without_fp8 is None:
        return FP8
    raise HeadraceError(
        f"kv_cache_dtype is {requested}, which {without_fp8} cannot compute with",
        rule="fp8 needs a GPU of compute capability 8.9 or more (L4, RTX 40, H100)",
        fix="Leave kv_cache_dtype out",
        param="kv_cache_dtype",
    )
