"""The shared library's functions, with their C types, and what one engine's kernels share."""

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import c_float, c_int, c_size_t, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from headrace.kernels.cpu_native.arena import WeightArena

_SIGNATURES: dict[str, tuple[type | None, Sequence[type]]] = {
    "hr_features": (c_int, []),
    "hr_advise_huge": (None, [c_void_p, c_size_t]),
    "hr_pool_create": (c_void_p, [c_int]),
    "hr_pool_destroy": (None, [c_void_p]),
    "hr_int8_packed_bytes": (c_size_t, [c_int] * 2),
    "hr_int8_pack": (None, [c_void_p, c_int, c_int, c_void_p]),
    "hr_int8_linear": (None, [c_void_p] * 6 + [c_int] * 4),
    "hr_int4_packed_bytes": (c_size_t, [c_int] * 4),
    "hr_int4_pack": (None, [c_void_p] * 3 + [c_int] * 4 + [c_void_p]),
    "hr_int4_linear": (None, [c_void_p] * 2 + [c_int] * 2 + [c_void_p] * 3 + [c_int] * 4),
    "hr_bf16_packed_bytes": (c_size_t, [c_int] * 2),
    "hr_bf16_pack": (None, [c_void_p, c_int, c_int, c_void_p]),
    "hr_bf16_linear": (None, [c_void_p] * 5 + [c_int] * 3),
    "hr_rms_norm": (None, [c_void_p] * 5 + [c_int] * 4 + [c_float]),
    "hr_silu_and_mul": (None, [c_void_p] * 3 + [c_int] * 3),
    "hr_rope_and_cache": (None, [c_void_p] * 10 + [c_int] * 8 + [c_float]),
    "hr_attend": (None, [c_void_p] * 8 + [c_int] * 9 + [c_float]),
}

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The numbers by which the C side knows the dtypes of activations and caches."""


class KernelLibrary:
    """The compiled functions, as attributes of `c`."""

    def __init__(self, path: Path) -> None:
        """Load the library at `path`; raises OSError if that is not one."""
        self.c = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments

    @property
    def multiplies_bf16(self) -> bool:
        """Whether this CPU has the bf16 dot products that the dense kernel is written for."""
        return bool(self.c.hr_features() & 1)


class KernelContext:
    """What one engine's kernels share: worker threads, which end with this object, and memory for packed weights."""

    def __init__(self, library: KernelLibrary, threads: int) -> None:
        """Start `threads` - 1 workers: the thread that calls a kernel takes part."""
        self.c = library.c
        self.arena = WeightArena(self.c)
        handle = self.c.hr_pool_create(max(1, threads))
        if not handle:
            raise MemoryError("no memory for the kernels' thread pool")
        self.pool = c_void_p(handle)
        # Not at exit: a thread that is still in a kernel then would lose its pool, and workers end with the process.
        weakref.finalize(self, self.c.hr_pool_destroy, self.pool).atexit = False


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's elements are; the null pointer for None."""
    return None if tensor is None else tensor.data_ptr()
