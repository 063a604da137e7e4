"""Compile the sm_90 kernels ahead as a start does, for a card that is not there, and print what was done, as JSON.

A program of its own, because a process interprets kernels or compiles them. Arguments: the facts of the start.
"""

import json
import sys
from dataclasses import replace

from compile_all import launches
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from headrace.kernels.gpu.compile_ahead import compile_ahead
from headrace.kernels.gpu.launch import Launch, launching_nothing

KERNELS = {"rms_norm", "silu_and_mul", "copy_blocks", "gemv, 1: qkv", "small_matmul: down"}


class AbsentCard:
    """What Triton asks of a driver before it launches anything; a launch finds nothing here and fails."""

    def get_current_target(self) -> GPUTarget:
        """An H100."""
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The first."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default stream."""
        return 0


def main() -> None:
    """Fail once, compile ahead, then do the work once more as a launch would find it."""
    driver.set_active(AbsentCard())
    todo = [launch for name, launch in launches(90) if name in KERNELS]
    error = failure_of(replace(todo[0], constants=dict.fromkeys(todo[0].constants, 3)))
    times, built, found = 0, 0, 0

    def work() -> None:
        nonlocal times
        times += 1
        for launch in todo * 3:
            launch.run()

    def note(*, cache_hit: bool, **_: object) -> None:
        nonlocal built, found
        built, found = built + (not cache_hit), found + cache_hit

    knobs.compilation.listener = note
    compile_ahead(work, sys.argv[1])
    ahead = {"times": times, "built": built, "found": found}
    with launching_nothing():
        work()
    print(json.dumps({"kernels": len(todo), "ahead": ahead, "built later": built - ahead["built"], "error": error}))


def failure_of(broken: Launch) -> str:
    """The error of compiling a kernel ahead that cannot be compiled."""
    try:
        compile_ahead(broken.run, "broken")
    except Exception as error:
        return type(error).__name__
    return ""


if __name__ == "__main__":
    main()
