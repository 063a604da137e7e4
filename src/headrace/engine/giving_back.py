"""Memory given back: nothing keeps what an engine held, and neither torch nor the C library keeps it in stock.

What stays by design is CUDA's own: the context, and the code of kernels that were loaded into it.
"""

import contextlib
import ctypes
import gc
import sys
import traceback
from collections.abc import Callable, Iterator

import torch


def return_memory() -> None:
    """Hand memory that nobody uses any more to the device and to the system."""
    gc.collect()
    trim_heap()
    if torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # a device that failed takes nothing back
            forget_workspaces()
            torch.cuda.empty_cache()
            _of_torch("_host_emptyCache")()


@contextlib.contextmanager
def nothing_left_on_failure() -> Iterator[None]:
    """If the block raises, what its calls had built is given back before the error goes on."""
    try:
        with no_frames_on_failure():
            yield
    except BaseException:
        return_memory()
        raise


@contextlib.contextmanager
def no_frames_on_failure() -> Iterator[None]:
    """If the block raises, the variables of the calls that ended by it are cleared.

    A notebook keeps the last error, and with its traceback all that those calls had made, until the next one.
    """
    earlier = sys.exception()
    try:
        yield
    except BaseException as error:
        for each in _causes(error, earlier):
            traceback.clear_frames(each.__traceback__)
        raise


def _causes(error: BaseException | None, earlier: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, but not what was being handled when its block began: that is somebody else's."""
    seen: set[int] = set()
    while error is not None and error is not earlier and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def forget_workspaces() -> None:
    """Have cuBLAS drop its working memory, 32 MiB for each stream that it was called on; it takes new when it needs."""
    _of_torch("_cuda_clearCublasWorkspaces")()


def trim_heap() -> None:
    """Have the C library give freed memory back to the system, where it can: weights leave holes of megabytes."""
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _of_torch(name: str) -> Callable[[], None]:
    """A function that torch has for its own use; one that does nothing in a torch without it."""
    found: Callable[[], None] | None = getattr(torch._C, name, None)
    return found or _nothing


def _nothing() -> None:
    """There is nothing to do."""
