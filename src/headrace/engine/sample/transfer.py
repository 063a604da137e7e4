"""Copies between host and device that nobody waits for."""

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(values: Sequence[object], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A (nested) list of numbers as a tensor on the device, to be used by what is queued there after."""
    host = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return host.to(device, non_blocking=True)


def download(tensor: Tensor) -> Tensor:
    """A copy in host memory, to be read once the device has come that far; on a CPU the tensor itself."""
    if tensor.device.type == "cpu":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
