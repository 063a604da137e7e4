"""Signs of life of the engine's loop, in memory that the front can read without asking.

A file of a few bytes beside the sockets, mapped by both sides: writing it costs no system call, and a front that asks
whether the engine moves does not wait for an engine that does not.
"""

import mmap
import os
import time
from pathlib import Path
from typing import NamedTuple

FILE_NAME = "heartbeat"


class Beat(NamedTuple):
    """When the loop last moved (`time.monotonic`, which all processes share), and the tokens of the step it began."""

    at: float
    step_tokens: int


class Heartbeat:
    """One side's view of the file at `path`. The front creates it before the engine starts."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(descriptor, mmap.PAGESIZE)
            self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        finally:
            os.close(descriptor)
        # Views of 8 bytes, not struct: a store to one of them is whole, so the other side never reads half a number.
        self._times = memoryview(self._memory).cast("d")
        self._tokens = memoryview(self._memory).cast("q")
        if create:
            self.beat()

    def beat(self, step_tokens: int = 0) -> None:
        """Say that the loop moves, and how many tokens the step has that begins now (0: none begins)."""
        self._times[0] = time.monotonic()
        self._tokens[1] = step_tokens

    def read(self) -> Beat:
        """The last sign of life. Read in the other order than written: the time is never older than the step."""
        step_tokens = self._tokens[1]
        return Beat(self._times[0], step_tokens)

    def close(self) -> None:
        """Let go of the memory; closing twice is fine."""
        self._times.release()
        self._tokens.release()
        self._memory.close()
