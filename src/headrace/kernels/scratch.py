"""Memory that is used again at every call: a large allocation is handed back to the system and faulted in anew."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Scratch:
    """One buffer, as large as the largest use so far. What `take` gave is overwritten through the next `take`."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """An uninitialized tensor."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes > len(self._bytes):
            self._bytes = torch.empty(nbytes, dtype=torch.uint8)
        return self._bytes[:nbytes].view(dtype).view(*shape)
