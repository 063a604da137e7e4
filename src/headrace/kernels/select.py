"""Which implementation of the operations a device gets."""

from concurrent.futures import Future
from dataclasses import dataclass

import torch

from headrace.kernels.cpu_native import KernelLibrary, KernelsUnavailable, NativeOps, start_build
from headrace.kernels.cpu_ops import CpuOps
from headrace.kernels.ops import Ops
from headrace.kernels.torch_ops import TorchOps


@dataclass(frozen=True, slots=True)
class PendingKernels:
    """Kernels that are being found or built while other things are done; `library` is None where there are none."""

    library: Future[KernelLibrary] | None

    def ops(self, dtype: torch.dtype) -> tuple[Ops, str]:
        """Wait for them: the operations for activations of `dtype`, and a line that says which these are."""
        if self.library is None:
            return TorchOps(), "torch (the reference implementation)"
        threads = torch.get_num_threads()
        try:
            return NativeOps(self.library.result(), dtype), f"compiled for this CPU, {threads} threads"
        except KernelsUnavailable as reason:
            return CpuOps(dtype), f"torch, {threads} threads: {reason}"


def start_kernels(device: torch.device) -> PendingKernels:
    """Begin to find the best kernels for a device; on a CPU they are compiled once, in the background."""
    return PendingKernels(start_build() if device.type == "cpu" else None)


def select_ops(device: torch.device, dtype: torch.dtype) -> Ops:
    """The best implementation for activations of `dtype` on `device`, now."""
    return start_kernels(device).ops(dtype)[0]
