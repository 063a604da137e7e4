"""How the contexts of decoding rows are cut into chunks, and the list of chunks, made on the device once a step.

Every chunk that exists is one item of work in a list, and a fixed number of programs shares the list. The chunks are
made as long as it takes for the programs to be done together: few rows give each program one chunk, many rows give
each several. So a row's cut, and the rounding of its result, depends on the lengths of its batch mates.
"""

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.device import GpuTraits
from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.gpu.tiles import decode_programs
from headrace.kernels.ops import StepBatch

ITEM_FIELDS = 8
"""int32 values of an item: row, token, first key, last key + 1, chunks of the row, this chunk; two are unused."""
_FEW_PROGRAMS = 64
_LEAST_CHUNK_TOKENS = 64
_CHUNK_STEP = 16
_FITTINGS = 5
"""How often the chunks are made longer to come near the wanted number of them."""
_MANY_ROWS_ITEMS = 4
"""Chunks that each program gets, about, where rows are too many to share out one chunk each."""
_LEAST_SPLITS, _MOST_SPLITS = 16, 128
_MOST_CHUNKS = 8192
"""Of a step, if all rows are long: captured steps have memory for so many."""
_ROWS_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class ChunkRule:
    """A row is cut into at most `max_splits` equal chunks, so long that the step has about `items`; 0: of 64 tokens.

    `window` None: all is seen. `latency_bound` if the step is too small to fill the card: what counts then is how soon
    one program is done.
    """

    max_splits: int
    items: int
    window: int | None
    latency_bound: bool

    @property
    def constants(self) -> dict[str, int]:
        """As the kernels want them."""
        return {"MAX_SPLITS": self.max_splits, "ITEMS": self.items, "WINDOW": self.window or 0}

    def most_items(self, batch: StepBatch) -> int:
        """Chunks of a step whose lengths are known, at most."""
        return int(np.minimum(-(-batch.kv_lens // _LEAST_CHUNK_TOKENS), self.max_splits).sum())


def chunk_rule(
    num_rows: int, num_kv_heads: int, window: int | None, traits: GpuTraits, cached_bytes: int = 2
) -> ChunkRule:
    """Chunks small enough that few rows fill the card, and large enough that many do not pay for merging.

    Numbers of rows between two that steps are captured for have the rule of the larger.
    """
    num_rows = 1 << (num_rows - 1).bit_length() if num_rows <= 8 else -(-num_rows // 8) * 8
    if num_rows * num_kv_heads < _FEW_PROGRAMS:
        return ChunkRule(32, 0, window, True)
    programs = -(-traits.num_multiprocessors * decode_programs(cached_bytes) // num_kv_heads)
    splits = min(max(_floor_power(_MOST_CHUNKS // num_rows), _LEAST_SPLITS), _MOST_SPLITS)
    return ChunkRule(splits, programs if 2 * num_rows <= programs else _MANY_ROWS_ITEMS * programs, window, False)


def _floor_power(number: int) -> int:
    return 1 << max(number, 1).bit_length() - 1


@triton.jit
def _first_seen(context: tl.tensor, WINDOW: tl.constexpr) -> tl.tensor:
    """The first key that the last token of a context sees."""
    return tl.maximum(context - WINDOW, 0) if WINDOW > 0 else context * 0


@triton.jit
def _equal_chunk(seen: tl.tensor, longest: tl.tensor, MAX_SPLITS: tl.constexpr, STEP: tl.constexpr) -> tl.tensor:
    """Tokens of equal chunks, as few as are no longer than `longest`: a short rest would leave a program idle."""
    chunks = tl.minimum(tl.maximum(tl.cdiv(seen, longest), 1), MAX_SPLITS)
    return tl.maximum(tl.cdiv(tl.cdiv(seen, chunks), STEP), 1) * STEP


@triton.jit
def _num_chunks(
    row: tl.tensor,
    exists: tl.tensor,
    query_start: tl.tensor,
    context_lens: tl.tensor,
    longest: tl.tensor,
    MAX_SPLITS: tl.constexpr,
    WINDOW: tl.constexpr,
    STEP: tl.constexpr,
) -> tl.tensor:
    """Chunks of each row; none of one that does not decode (adds other than one token)."""
    queries = tl.load(query_start + row + 1, exists, other=0) - tl.load(query_start + row, exists, other=0)
    context = tl.load(context_lens + row, exists, other=0)
    seen = context - _first_seen(context, WINDOW)
    return tl.where(queries == 1, tl.cdiv(seen, _equal_chunk(seen, longest, MAX_SPLITS, STEP)), 0)


@triton.jit
def _chunks_before(
    end: tl.tensor,
    query_start: tl.tensor,
    context_lens: tl.tensor,
    longest: tl.tensor,
    MAX_SPLITS: tl.constexpr,
    WINDOW: tl.constexpr,
    STEP: tl.constexpr,
    ROWS: tl.constexpr,
) -> tl.tensor:
    """Chunks of all rows before `end`."""
    before = end * 0
    for start in range(0, end, ROWS):
        row = start + tl.arange(0, ROWS)
        chunks = _num_chunks(row, row < end, query_start, context_lens, longest, MAX_SPLITS, WINDOW, STEP)
        before += tl.sum(chunks, axis=0)
    return before


@triton.jit(do_not_specialize=["num_rows"])
def decode_plan_kernel(
    items: tl.tensor,
    num_items: tl.tensor,
    query_start: tl.tensor,
    context_lens: tl.tensor,
    num_rows: tl.tensor,
    MAX_SPLITS: tl.constexpr,
    ITEMS: tl.constexpr,
    WINDOW: tl.constexpr,
    LEAST: tl.constexpr,
    STEP: tl.constexpr,
    FITTINGS: tl.constexpr,
    ROWS: tl.constexpr,
    FIELDS: tl.constexpr,
) -> None:
    """One row a program: the number of chunks before it says where its own go."""
    row = tl.program_id(0)
    longest = row * 0 + LEAST
    if ITEMS > 0:
        for _ in range(FITTINGS):
            found = _chunks_before(num_rows, query_start, context_lens, longest, MAX_SPLITS, WINDOW, STEP, ROWS)
            if found > ITEMS:
                longest = tl.cdiv(longest * found, ITEMS * STEP) * STEP
    before = _chunks_before(row, query_start, context_lens, longest, MAX_SPLITS, WINDOW, STEP, ROWS)
    own = _num_chunks(row, True, query_start, context_lens, longest, MAX_SPLITS, WINDOW, STEP)
    context = tl.load(context_lens + row)
    lowest = _first_seen(context, WINDOW)
    size = _equal_chunk(context - lowest, longest, MAX_SPLITS, STEP)
    chunk = tl.arange(0, MAX_SPLITS)
    begin = lowest + chunk * size
    item = items + (before + chunk) * FIELDS
    tl.store(item, row + chunk * 0, chunk < own)
    tl.store(item + 1, tl.load(query_start + row) + chunk * 0, chunk < own)
    tl.store(item + 2, begin, chunk < own)
    tl.store(item + 3, tl.minimum(begin + size, context), chunk < own)
    tl.store(item + 4, own + chunk * 0, chunk < own)
    tl.store(item + 5, chunk, chunk < own)
    if row == num_rows - 1:
        tl.store(num_items, before + own)


def decode_plan_launch(rule: ChunkRule, batch: StepBatch, items: Tensor, num_items: Tensor) -> Launch:
    """Fill `items` int32 [enough, ITEM_FIELDS] and `num_items` int32 [1]."""
    rows = len(batch.context_lens)
    arguments: Arguments = {
        "items": items, "num_items": num_items, "query_start": batch.query_start, "context_lens": batch.context_lens,
        "num_rows": rows,
    }  # fmt: skip
    fitting = {"LEAST": _LEAST_CHUNK_TOKENS, "STEP": _CHUNK_STEP, "FITTINGS": _FITTINGS}
    constants = {**rule.constants, **fitting, "ROWS": _ROWS_AT_A_TIME, "FIELDS": ITEM_FIELDS}
    return Launch(decode_plan_kernel, (rows,), arguments, constants)


@dataclass(frozen=True, slots=True)
class DecodeWork:
    """What the decoding rows of a step share between its layers: the chunks, and memory for what chunks find.

    `partial` fp32 [items, kv heads, group, head_dim] and `weight` fp32 without the last axis are a chunk's result and
    the logarithm of its weight; `arrivals` int32 [rows, kv heads] counts finished chunks and returns to 0.
    """

    rule: ChunkRule
    items: Tensor
    num_items: Tensor
    partial: Tensor
    weight: Tensor
    arrivals: Tensor


def empty_decode_work(
    rule: ChunkRule, num_rows: int, most_items: int, heads: tuple[int, int, int], device: torch.device
) -> DecodeWork:
    """Memory for steps of `num_rows` and `most_items`; `heads` are kv heads, query heads of each, and head_dim."""
    kv_heads, group, head_dim = heads
    items = torch.empty((most_items, ITEM_FIELDS), dtype=torch.int32, device=device)
    num_items = torch.empty(1, dtype=torch.int32, device=device)
    shape = (most_items, kv_heads, group)
    partial = torch.empty((*shape, head_dim), dtype=torch.float32, device=device)
    weight = torch.empty(shape, dtype=torch.float32, device=device)
    arrivals = torch.zeros((num_rows, kv_heads), dtype=torch.int32, device=device)
    return DecodeWork(rule, items, num_items, partial, weight, arrivals)
