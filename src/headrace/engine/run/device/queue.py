"""The device's queue of work as the host sees it: pinned memory, and marks to wait at."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor


class Mark(Protocol):
    """A place in the queue."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""
        ...


class _Passed:
    """A mark of a device that works in step with the host."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


class DeviceQueue:
    """The current stream of a CUDA device; on a CPU everything is done at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._is_cuda = device.type == "cuda"

    def pinned(self, *size: int, dtype: torch.dtype = torch.int32) -> Tensor:
        """Host memory that the device copies to and from by itself."""
        return torch.empty(size, dtype=dtype, pin_memory=self._is_cuda)

    def current(self) -> AbstractContextManager[object]:
        """Makes the device the one that kernels are launched on; it is another one in each thread."""
        return torch.cuda.device(self.device) if self._is_cuda else nullcontext()

    def mark(self) -> Mark:
        """A mark after everything that was queued so far."""
        if not self._is_cuda:
            return _Passed()
        event = torch.cuda.Event()
        event.record()
        return event
