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

    device: torch.device
    library: Future[KernelLibrary] | None

    def ops(self, dtype: torch.dtype) -> tuple[Ops, str]:
        """Wait for them: the operations for activations of `dtype`, and a line that says which these are."""
        if self.device.type == "cuda":
            return _gpu_ops(self.device)
        if self.library is None:
            return TorchOps(), "torch (the reference implementation)"
        threads = torch.get_num_threads()
        try:
            return NativeOps(self.library.result(), dtype), f"compiled for this CPU, {threads} threads"
        except KernelsUnavailable as reason:
            return CpuOps(dtype), f"torch, {threads} threads: {reason}"


def start_kernels(device: torch.device) -> PendingKernels:
    """Begin to find the best kernels for a device; on a CPU they are compiled once, in the background."""
    return PendingKernels(device, start_build() if device.type == "cpu" else None)


def _gpu_ops(device: torch.device) -> tuple[Ops, str]:
    """The Triton kernels, or the specification where triton is missing. Raises `HeadraceError` for too old a card."""
    try:
        from headrace.kernels.gpu.device import traits_of
        from headrace.kernels.gpu.ops import TritonOps
    except ImportError as reason:
        return TorchOps(), f"torch (the reference implementation; no Triton kernels: {reason})"
    traits = traits_of(device)
    return TritonOps(traits), f"Triton, sm_{traits.capability[0]}{traits.capability[1]}"


def select_ops(device: torch.device, dtype: torch.dtype) -> Ops:
    """The best implementation for activations of `dtype` on `device`, now."""
    return start_kernels(device).ops(dtype)[0]
