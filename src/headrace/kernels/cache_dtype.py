"""The dtype in which the cache keeps keys and values: that of the activations, or fp8 (e4m3: four exponent bits).

Fp8 halves the bytes that attention reads. There is no scale: keys and values of the served families are far within
its range, and what is not saturates (https://arxiv.org/abs/2209.05433).
"""

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0
"""The largest number of e4m3; it has no infinity."""


def as_cached(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values in the dtype of a cache. In fp8 what is out of range becomes the largest number; NaN stays."""
    return values.clamp(-FP8_LARGEST, FP8_LARGEST).to(dtype) if dtype == FP8 else values.to(dtype)


def indexable(cache: Tensor) -> Tensor:
    """The same memory in a dtype that torch can index and assign by tensors on every device: fp8 as its bits."""
    return cache.view(torch.uint8) if cache.dtype == FP8 else cache
