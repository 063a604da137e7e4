"""Symmetric int8 quantization by rows: q = round(x / scale) with scale = max |x| / 127, one scale a row."""

import torch
from torch import Tensor

INT8_MAX = 127.0


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """`[N, K]` to int8 `[N, K]` and float32 scales `[N, 1]`; a row of zeros gets a tiny scale and zeros."""
    wide = x.float()
    scale = (wide.abs().amax(dim=-1, keepdim=True) / INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    return (wide / scale).round().to(torch.int8), scale
