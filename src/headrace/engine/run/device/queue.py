"""The device's queue of work as the host sees it: pinned memory, and marks to wait at."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

_MARKS = 8
"""More than steps in flight: making one takes longer than setting it."""


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
        self._current = torch.cuda.device(device) if self._is_cuda else nullcontext()
        self._marks = [torch.cuda.Event() if self._is_cuda else None for _ in range(_MARKS)]
        self._turn = 0

    def pinned(self, *size: int, dtype: torch.dtype = torch.int32) -> Tensor:
        """Host memory that the device copies to and from by itself."""
        return torch.empty(size, dtype=dtype, pin_memory=self._is_cuda)

    def current(self) -> AbstractContextManager[object]:
        """Makes the device the one that kernels are launched on; it is another one in each thread."""
        return self._current

    def mark(self) -> Mark:
        """A mark after everything that was queued so far, good until as many others as there are were set."""
        self._turn = (self._turn + 1) % _MARKS
        event = self._marks[self._turn]
        if event is None:
            return _Passed()
        event.record()
        return event
