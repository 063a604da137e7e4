"""Programmatic dependent launch (sm_90 and later): a kernel begins while its predecessor still runs.

It says at once that its own successor may begin, fetches what no kernel of the step writes, the weights, and then waits
until its predecessor is complete. Every kernel that is launched so waits before it reads or writes anything else, so
that what is complete after the wait is everything before it, not the predecessor alone.
"""

import triton
import triton.language as tl


@triton.jit
def let_successor_begin(EARLY: tl.constexpr) -> None:
    """The next kernel may begin as soon as every program of this one has said so."""
    if EARLY:
        tl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def await_predecessor(EARLY: tl.constexpr) -> None:
    """What came before is complete, and its writes are visible, after this."""
    if EARLY:
        tl.inline_asm_elementwise("griddepcontrol.wait; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1)
