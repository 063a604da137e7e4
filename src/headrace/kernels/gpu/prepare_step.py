"""From what a step was told to its tensors: the rows' new tokens laid out flat, on the device."""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.exchange import NUM_TOKENS
from headrace.kernels.gpu.launch import Arguments, Launch

_TOKENS_AT_A_TIME = 256


@triton.jit(do_not_specialize=["num_rows", "num_tokens"])
def lay_out_step_kernel(
    header: tl.tensor,
    known: tl.tensor,
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
) -> None:
    """A program for each row of the step; the last one pads the tokens that follow those of the last row."""
    index = tl.program_id(0)
    if index == num_rows:
        for start in range(tl.load(header + TOTAL), num_tokens, TOKENS):
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
    """The rows of a step of R rows: int32 `row_ids` [R], `query_start` [R + 1] and `context_lens` [R].

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
    header: Tensor,
    known: Tensor,
    rows: StepRows,
    row_tables: Tensor,
    last_tokens: Tensor,
    step: StepTensors,
    block_size: int,
) -> Launch:
    """Fill `step` from the rows' memory: int32 `row_tables` [rows, B] and `last_tokens` [rows].

    `header` says how many tokens there are, `known` int32 [T] which: one that is negative is its row's last one. Slots
    of padding tokens are -1.
    """
    num_rows = len(rows.row_ids)
    arguments: Arguments = {
        "header": header, "known": known, "row_ids": rows.row_ids, "query_start": rows.query_start,
        "context_lens": rows.context_lens, "row_tables": row_tables, "last_tokens": last_tokens,
        "token_ids": step.token_ids, "positions": step.positions, "slots": step.slots,
        "step_tables": step.block_tables, "table_width": row_tables.shape[1], "num_rows": num_rows,
        "num_tokens": len(step.token_ids),
    }  # fmt: skip
    constants = {"BLOCK_SIZE": block_size, "TOKENS": _TOKENS_AT_A_TIME, "TOTAL": NUM_TOKENS}
    return Launch(lay_out_step_kernel, (num_rows + 1,), arguments, constants)
