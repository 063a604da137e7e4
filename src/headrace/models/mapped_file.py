"""A file mapped into memory, of which parts can be read without a copy and given back once used.

A page that was read counts as this process's memory until it is released; a loader that releases each tensor after
its use therefore never holds more than a few of them, however large the file.
"""

import mmap
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SERIAL_ELEMENTS: Final = 1 << 15
"""torch spreads a copy of more elements over its threads."""


def copy_serially(source: Tensor, target: Tensor) -> None:
    """`target.copy_(source)` on this thread alone.

    Loading makes thousands of short copies. Where other processes want the cores too, as when several models start at
    once, meeting the other threads at the end of each copy takes ten times as long as copying.
    To a GPU it is one transfer.
    """
    if target.device.type != "cpu":
        target.view(-1).copy_(source.reshape(-1))
        return
    flat_source, flat_target = source.reshape(-1), target.view(-1)
    for first in range(0, len(flat_target), _SERIAL_ELEMENTS):
        last = first + _SERIAL_ELEMENTS
        flat_target[first:last].copy_(flat_source[first:last])


class MappedFile:
    """A read-only file. Pieces stay valid for as long as they are referenced, also after this object is gone."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            # Copy-on-write, since torch warns of memory that cannot be written to; nothing ever writes.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return len(self._map)

    def tensor(self, offset: int, nbytes: int, dtype: torch.dtype) -> Tensor:
        """The bytes from `offset` on as a flat tensor."""
        if nbytes == 0:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=nbytes // dtype.itemsize, offset=offset)

    def array(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """The bytes from `offset` on as a flat array."""
        return np.frombuffer(self._map, dtype=np.uint8, count=nbytes, offset=offset)

    def release(self, offset: int, nbytes: int) -> None:
        """Give the pages of this range back; they are read from the file again should they be needed again."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        first = offset - offset % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, first, offset + nbytes - first)
