"""How the contexts of decoding rows are cut into chunks, and the list of chunks, made on the device once a step.

A row's cut depends on its own length and on the shape of the step (how many rows, how many key heads), never on the
lengths of its batch mates: neither does its result. The list makes every chunk that exists one item of work, so that
a fixed number of programs shares them evenly whatever the lengths are.
"""

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.device import GpuTraits
from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.ops import StepBatch

ITEM_FIELDS = 8
"""int32 values of an item: row, token, first key, last key + 1, chunks of the row, this chunk; two are unused."""
_FEW_PROGRAMS = 64
_FEW_CHUNK_TOKENS = 64
_LEAST_CHUNK_TOKENS, _MOST_CHUNK_TOKENS = 64, 512
_LEAST_SPLITS, _MOST_SPLITS = 16, 128
_MOST_CHUNKS = 8192
"""Of a step, if all rows are long: captured steps have memory for so many."""
_ROWS_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class ChunkRule:
    """A row is cut into equal chunks of at most `chunk_tokens`, or into `max_splits`; `window` None: all is seen.

    `latency_bound` if the step is too small to fill the card: what counts then is how soon one program is done.
    """

    max_splits: int
    chunk_tokens: int
    window: int | None
    latency_bound: bool

    @property
    def constants(self) -> dict[str, int]:
        """As the kernels want them."""
        return {"MAX_SPLITS": self.max_splits, "CHUNK": self.chunk_tokens, "WINDOW": self.window or 0}

    def most_items(self, batch: StepBatch) -> int:
        """Chunks of a step whose lengths are known, at most."""
        return int(np.minimum(-(-batch.kv_lens // self.chunk_tokens), self.max_splits).sum())


def chunk_rule(num_rows: int, num_kv_heads: int, window: int | None, traits: GpuTraits) -> ChunkRule:
    """Chunks small enough that few rows fill the card, and large enough that many do not pay for merging."""
    units = num_rows * num_kv_heads
    if units < _FEW_PROGRAMS:
        return ChunkRule(32, _FEW_CHUNK_TOKENS, window, True)
    share = _floor_power(128 * units // traits.num_multiprocessors)
    splits = min(max(_floor_power(_MOST_CHUNKS // num_rows), _LEAST_SPLITS), _MOST_SPLITS)
    return ChunkRule(splits, min(max(share, _LEAST_CHUNK_TOKENS), _MOST_CHUNK_TOKENS), window, False)


def _floor_power(number: int) -> int:
    return 1 << max(number, 1).bit_length() - 1


@triton.jit
def _first_seen(context: tl.tensor, WINDOW: tl.constexpr) -> tl.tensor:
    """The first key that the last token of a context sees."""
    return tl.maximum(context - WINDOW, 0) if WINDOW > 0 else context * 0


@triton.jit
def _tokens_of_chunk(seen: tl.tensor, MAX_SPLITS: tl.constexpr, CHUNK: tl.constexpr) -> tl.tensor:
    """Of equal chunks, as few as are no longer than `CHUNK`: a long one beside a short rest would be waited for."""
    chunks = tl.minimum(tl.maximum(tl.cdiv(seen, CHUNK), 1), MAX_SPLITS)
    return tl.maximum(tl.cdiv(tl.cdiv(seen, chunks), 16), 1) * 16


@triton.jit
def _num_chunks(
    row: tl.tensor,
    exists: tl.tensor,
    query_start: tl.tensor,
    context_lens: tl.tensor,
    MAX_SPLITS: tl.constexpr,
    CHUNK: tl.constexpr,
    WINDOW: tl.constexpr,
) -> tl.tensor:
    """Chunks of each row; none of one that does not decode (adds other than one token)."""
    queries = tl.load(query_start + row + 1, exists, other=0) - tl.load(query_start + row, exists, other=0)
    context = tl.load(context_lens + row, exists, other=0)
    seen = context - _first_seen(context, WINDOW)
    return tl.where(queries == 1, tl.cdiv(seen, _tokens_of_chunk(seen, MAX_SPLITS, CHUNK)), 0)


@triton.jit(do_not_specialize=["num_rows"])
def decode_plan_kernel(
    items: tl.tensor,
    num_items: tl.tensor,
    query_start: tl.tensor,
    context_lens: tl.tensor,
    num_rows: tl.tensor,
    MAX_SPLITS: tl.constexpr,
    CHUNK: tl.constexpr,
    WINDOW: tl.constexpr,
    ROWS: tl.constexpr,
    FIELDS: tl.constexpr,
) -> None:
    """One row a program: the number of chunks before it says where its own go."""
    row = tl.program_id(0)
    before = 0
    for start in range(0, row, ROWS):
        rows = start + tl.arange(0, ROWS)
        before += tl.sum(_num_chunks(rows, rows < row, query_start, context_lens, MAX_SPLITS, CHUNK, WINDOW), axis=0)
    own = _num_chunks(row, True, query_start, context_lens, MAX_SPLITS, CHUNK, WINDOW)
    context = tl.load(context_lens + row)
    lowest = _first_seen(context, WINDOW)
    size = _tokens_of_chunk(context - lowest, MAX_SPLITS, CHUNK)
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
    constants = {**rule.constants, "ROWS": _ROWS_AT_A_TIME, "FIELDS": ITEM_FIELDS}
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
