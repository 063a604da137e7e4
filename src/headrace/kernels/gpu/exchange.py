"""What a step is told and what it tells, through memory of the host that the device reads and writes by itself.

A copy between host and device would hold up the kernels before and after it for longer than these take. The memory has
several places, one for each step in turn; the device counts the steps, so that a captured launch works on all of them.
"""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.launch import Arguments, Launch

NUM_TOKENS, NUM_PAIRS = range(2)
"""What the first values of a message are: tokens of the step, and changes of the rows' memory."""
HEADER_FIELDS = 16
"""Values that the header has room for, so that what follows it is aligned."""

_PROGRAMS = 16
_VALUES = 256


@triton.jit
def receive_kernel(
    messages: tl.tensor,
    step: tl.tensor,
    memory: tl.tensor,
    turns: tl.tensor,
    message_stride: tl.tensor,
    columns: tl.tensor,
    NUM_PLACES: tl.constexpr,
    PROGRAMS: tl.constexpr,
    VALUES: tl.constexpr,
    TOKENS: tl.constexpr,
    PAIRS: tl.constexpr,
) -> None:
    """Copy the columns and the tokens of the next message to `step`, and carry out its changes on `memory`.

    Each program adds one to `turns` when it is done, so that all of a launch see the same multiple of them.
    """
    turn = tl.load(turns) // PROGRAMS % NUM_PLACES
    message = messages + turn * message_stride
    first, every = tl.program_id(0) * VALUES, PROGRAMS * VALUES
    value = tl.arange(0, VALUES)
    for start in range(first, columns, every):
        exists = start + value < columns
        tl.store(step + start + value, tl.load(message + start + value, exists), exists)
    num_tokens, num_pairs = tl.load(message + TOKENS), tl.load(message + PAIRS)
    for start in range(first, num_tokens, every):
        exists = start + value < num_tokens
        token = tl.load(message + columns + start + value, exists)
        tl.store(step + columns + start + value, token, exists)
    pairs = message + columns + num_tokens
    for start in range(first, num_pairs, every):
        exists = start + value < num_pairs
        place = tl.load(pairs + 2 * (start + value), exists, other=0)
        changed = tl.load(pairs + 2 * (start + value) + 1, exists, other=0)
        tl.store(memory + place, changed, exists)
    tl.debug_barrier()
    tl.atomic_add(turns, 1)


def receive_launch(messages: Tensor, step: Tensor, memory: Tensor, turns: Tensor, columns: int) -> Launch:
    """Take the next of `messages` int32 [places, enough], which the host has written.

    A message is `columns` values of fixed meaning, its header first; then the step's tokens; then pairs (place, value),
    no place in two of them. `step` int32 gets columns and tokens, `memory` int32 the pairs; `turns` int64 [1] counts.
    """
    arguments: Arguments = {
        "messages": messages, "step": step, "memory": memory, "turns": turns, "message_stride": messages.stride(0),
        "columns": columns,
    }  # fmt: skip
    constants = {
        "NUM_PLACES": len(messages), "PROGRAMS": _PROGRAMS, "VALUES": _VALUES, "TOKENS": NUM_TOKENS, "PAIRS": NUM_PAIRS
    }  # fmt: skip
    return Launch(receive_kernel, (_PROGRAMS,), arguments, constants)


@triton.jit(do_not_specialize=["count"])
def hand_out_kernel(
    values: tl.tensor,
    answers: tl.tensor,
    turns: tl.tensor,
    answer_stride: tl.tensor,
    count: tl.tensor,
    NUM_PLACES: tl.constexpr,
    PROGRAMS: tl.constexpr,
    VALUES: tl.constexpr,
) -> None:
    """Copy values to the place of the step that was received last."""
    answer = answers + (tl.load(turns) // PROGRAMS - 1) % NUM_PLACES * answer_stride
    for start in range(0, count, VALUES):
        value = start + tl.arange(0, VALUES)
        tl.store(answer + value, tl.load(values + value, value < count), value < count)


def hand_out_launch(values: Tensor, answers: Tensor, turns: Tensor) -> Launch:
    """Hand `values` int32 [S] to the host, into `answers` int32 [places, at least S]."""
    arguments: Arguments = {
        "values": values, "answers": answers, "turns": turns, "answer_stride": answers.stride(0), "count": len(values)
    }  # fmt: skip
    constants = {"NUM_PLACES": len(answers), "PROGRAMS": _PROGRAMS, "VALUES": _VALUES}
    return Launch(hand_out_kernel, (1,), arguments, constants)
