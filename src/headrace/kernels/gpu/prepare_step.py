"""From one packed upload to the tensors of a step, on the device: rows are brought up to date, then laid out flat.

The upload is int32. Its header says where its variable parts begin, so that a captured launch works on any step:
pairs (place, value) to write into the rows' memory, and the tokens that the host knows.
"""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.launch import Arguments, Launch

NUM_TOKENS, UPDATES_AT, NUM_UPDATES, TOKENS_AT = range(4)
"""What the values of the header are: tokens of the step, and where pairs and tokens begin in the upload."""
HEADER_FIELDS = 16
"""Values that the header has room for, so that what follows it is aligned."""

_UPDATE_PROGRAMS = 16
_UPDATES_AT_A_TIME = 256
_TOKENS_AT_A_TIME = 256


@triton.jit
def update_rows_kernel(
    upload: tl.tensor, memory: tl.tensor, UPDATES: tl.constexpr, AT: tl.constexpr, COUNT: tl.constexpr
) -> None:
    """Write each pair's value to its place; a fixed number of programs share the pairs."""
    first = upload + tl.load(upload + AT)
    count = tl.load(upload + COUNT)
    for start in range(tl.program_id(0) * UPDATES, count, tl.num_programs(0) * UPDATES):
        pair = start + tl.arange(0, UPDATES)
        exists = pair < count
        place = tl.load(first + 2 * pair, exists, other=0)
        value = tl.load(first + 2 * pair + 1, exists, other=0)
        tl.store(memory + place, value, exists)


def update_rows_launch(upload: Tensor, memory: Tensor) -> Launch:
    """Carry out the pairs of `upload` on `memory`, int32 both; no place may stand in two of them."""
    arguments: Arguments = {"upload": upload, "memory": memory}
    constants = {"UPDATES": _UPDATES_AT_A_TIME, "AT": UPDATES_AT, "COUNT": NUM_UPDATES}
    return Launch(update_rows_kernel, (_UPDATE_PROGRAMS,), arguments, constants)


@triton.jit(do_not_specialize=["num_rows", "num_tokens"])
def lay_out_step_kernel(
    upload: tl.tensor,
    row_ids: tl.tensor,
    query_start: tl.tensor,
    context_lens: tl.tensor,
    row_tables: tl.tensor,
    last_tokens: tl.tensor,
    token_ids: tl.tensor,
    positions: tl.tensor,
    slots: tl.tensor,
    step_tables: tl.tensor,
    table_width: tl.tensor,
    num_rows: tl.tensor,
    num_tokens: tl.tensor,
    BLOCK_SIZE: tl.constexpr,
    TOKENS: tl.constexpr,
    TOTAL: tl.constexpr,
    AT: tl.constexpr,
) -> None:
    """A program for each row of the step; the last one pads the tokens that follow those of the last row."""
    index = tl.program_id(0)
    if index == num_rows:
        for start in range(tl.load(upload + TOTAL), num_tokens, TOKENS):
            token = start + tl.arange(0, TOKENS)
            tl.store(token_ids + token, token.to(tl.int64) * 0, token < num_tokens)
            tl.store(positions + token, token.to(tl.int64) * 0, token < num_tokens)
            tl.store(slots + token, token.to(tl.int64) * 0 - 1, token < num_tokens)
    else:
        begin = tl.load(query_start + index)
        count = tl.load(query_start + index + 1) - begin
        context = tl.load(context_lens + index)
        row = tl.load(row_ids + index)
        table = row_tables + row.to(tl.int64) * table_width
        for start in range(0, tl.cdiv(context, BLOCK_SIZE), TOKENS):
            block = start + tl.arange(0, TOKENS)
            exists = block * BLOCK_SIZE < context
            tl.store(step_tables + index * table_width + block, tl.load(table + block, exists, other=0), exists)
        known = upload + tl.load(upload + AT)
        for start in range(0, count, TOKENS):
            token = start + tl.arange(0, TOKENS)
            exists = token < count
            position = context - count + token
            block = tl.load(table + position // BLOCK_SIZE, exists, other=0).to(tl.int64)
            given = tl.load(known + begin + token, exists, other=0)
            value = tl.where(given < 0, tl.load(last_tokens + row), given)
            tl.store(token_ids + begin + token, value.to(tl.int64), exists)
            tl.store(positions + begin + token, position.to(tl.int64), exists)
            tl.store(slots + begin + token, block * BLOCK_SIZE + position % BLOCK_SIZE, exists)


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of a step of R rows: int32 `row_ids` [R], `query_start` [R + 1] and `context_lens` [R] of the upload.

    Padding rows add no token and have no context.
    """

    row_ids: Tensor
    query_start: Tensor
    context_lens: Tensor


@dataclass(frozen=True, slots=True)
class StepTensors:
    """What is laid out: int64 `token_ids`, `positions` and `slots` [T], int32 `block_tables` [R, B]."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    block_tables: Tensor


def lay_out_step_launch(
    upload: Tensor, rows: StepRows, row_tables: Tensor, last_tokens: Tensor, step: StepTensors, block_size: int
) -> Launch:
    """Fill `step` from the rows' memory: int32 `row_tables` [rows, B] and `last_tokens` [rows].

    A token that is negative in the upload is its row's last one. Slots of padding tokens are -1.
    """
    num_rows = len(rows.row_ids)
    arguments: Arguments = {
        "upload": upload, "row_ids": rows.row_ids, "query_start": rows.query_start, "context_lens": rows.context_lens,
        "row_tables": row_tables, "last_tokens": last_tokens, "token_ids": step.token_ids, "positions": step.positions,
        "slots": step.slots, "step_tables": step.block_tables, "table_width": row_tables.shape[1],
        "num_rows": num_rows, "num_tokens": len(step.token_ids),
    }  # fmt: skip
    constants = {"BLOCK_SIZE": block_size, "TOKENS": _TOKENS_AT_A_TIME, "TOTAL": NUM_TOKENS, "AT": TOKENS_AT}
    return Launch(lay_out_step_kernel, (num_rows + 1,), arguments, constants)
