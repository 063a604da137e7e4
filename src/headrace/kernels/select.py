"""Which implementation of the operations a device gets."""

import torch

from headrace.kernels.cpu_ops import CpuOps
from headrace.kernels.ops import Ops
from headrace.kernels.torch_ops import TorchOps


def select_ops(device: torch.device, dtype: torch.dtype) -> Ops:
    """The best implementation for activations of `dtype` on `device`."""
    return CpuOps(dtype) if device.type == "cpu" else TorchOps()
