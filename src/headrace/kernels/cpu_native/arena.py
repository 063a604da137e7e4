"""Memory for packed weights, in large pieces on huge pages: reading weights once a step misses the translation cache
with every small page, which costs a fifth of the speed of decoding."""

import ctypes

import torch
from torch import Tensor

_HUGE_PAGE_BYTES = 2 << 20
_CHUNK_BYTES = 32 << 20
_ALIGNMENT = 64


class WeightArena:
    """Hands out pieces of chunks. A chunk is freed with the last tensor that lies in it; untouched memory is free."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._advise_huge = library.hr_advise_huge
        self._left = torch.empty(0, dtype=torch.uint8)

    def take(self, num_bytes: int) -> Tensor:
        """Uninitialized bytes, aligned to a cache line."""
        room = -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        if room > len(self._left):
            self._left = self._chunk(max(room, _CHUNK_BYTES))
        taken, self._left = self._left[:num_bytes], self._left[room:]
        return taken

    def _chunk(self, num_bytes: int) -> Tensor:
        whole = -(-num_bytes // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        memory = torch.empty(whole + _HUGE_PAGE_BYTES, dtype=torch.uint8)
        start = -memory.data_ptr() % _HUGE_PAGE_BYTES
        chunk = memory[start : start + whole]
        self._advise_huge(chunk.data_ptr(), whole)
        return chunk
