"""In which dtype a model computes."""

from typing import Literal

import torch

from headrace.core.config import Dtype
from headrace.core.errors import HeadraceError
from headrace.planner.shape import ModelShape


def resolve_dtype(
    requested: Dtype, shape: ModelShape, kind: Literal["safetensors", "gguf"], device: torch.device
) -> torch.dtype:
    """The dtype of activations, and of the weights that are not quantized.

    "auto" is the checkpoint's own, and float16 where that is bfloat16 and the device has none. A float16 GGUF is
    computed in bfloat16: such files are made of models whose activations may exceed the range of float16. Raises
    `HeadraceError` for bfloat16 on a device without it.
    """
    own = "bfloat16" if kind == "gguf" and shape.dtype == "float16" else shape.dtype
    dtype: torch.dtype = getattr(torch, own if requested == "auto" else requested)
    if dtype != torch.bfloat16 or _has_bfloat16(device):
        return dtype
    if requested == "auto":
        return torch.float16
    raise HeadraceError(
        f"dtype is bfloat16, which {torch.cuda.get_device_name(device)} cannot compute with",
        rule="bfloat16 needs a GPU of compute capability 8.0 or more",
        fix="Use dtype='float16', or 'auto'",
        param="dtype",
    )


def _has_bfloat16(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
