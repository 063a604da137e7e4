"""Compiles kernels before they are launched, on all cores at once: Triton by itself compiles one after the other."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Final

import triton
from triton import knobs

from headrace.kernels.gpu.launch import launching_nothing

_SOURCES: Final = Path(__file__).parent


def compile_ahead(work: Callable[[], object], facts: str) -> None:
    """Do `work` without launching any of its kernels, so that all of them are compiled when this returns.

    Nothing is done where kernels are interpreted, and where Triton's cache has it on record that they are there: for
    the same `facts`, whatever decides which kernels there are, with the same sources and version of Triton. A record
    that is wrong costs time alone, since a launch still compiles what is missing. Raises what Triton raises for a
    kernel that does not compile.
    """
    record = Path(knobs.cache.dir) / f"headrace-{_digest(facts)}"
    if knobs.runtime.interpret or os.path.exists(record):  # noqa: PTH110  (not readable is no reason to fail)
        return
    copy_context().run(_without_launching, work)  # a kernel that does not compile would leave Triton in its mode
    with suppress(OSError):  # a cache that cannot be written to serves all the same
        record.touch()


def _without_launching(work: Callable[[], object]) -> None:
    """Do the work; kernels that are missing go to threads, for which this waits."""
    pool = ThreadPoolExecutor(_num_cores(), "headrace-compile")
    with pool, triton.AsyncCompileMode(pool), launching_nothing():
        work()


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(facts: str) -> str:
    """The facts, Triton's version and the kernels' sources in one word."""
    digest = hashlib.sha256(f"{triton.__version__} {facts}".encode())
    for path in sorted(_SOURCES.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
