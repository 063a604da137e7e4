"""What the CPU derives from a `StepBatch` once a step and uses in every layer: indices and masks, planned in numpy.

Rows that are about as long are attended to together: a group pays for its longest row, so a row joins only while
the padding costs less than another round of calls. A row is read from the first block that its window reaches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.kernels.ops import StepBatch

Ints = NDArray[np.int64]

_QUERY_OVERHEAD = 4
"""Reading a key costs about as much as multiplying it with this many queries."""
_MAX_PADDING_WORK = 8192
"""Padding (keys times queries) that costs as much as the calls of one more group."""
_MAX_GROUP_BYTES = 16 << 20
"""Gathered keys and values of a group: more would leave the cache before they are used."""
_MAX_TILE_SCORES = 4 << 20
_TILE_QUERIES = (16, 256)


@dataclass(frozen=True, slots=True)
class Mask:
    """Added to the scores of the keys `start` to `stop` of a group; `[G, 1, Q, 1, stop - start]`, 0 or -inf."""

    start: int
    stop: int
    values: Tensor


@dataclass(frozen=True, slots=True)
class Tile:
    """Some queries of each row of a group, and the keys they may see.

    `tokens` int64 [G * Q]: the queries' places in the step; `own_keys` int64 [G * num_kv_heads * Q]: the places of the
    keys at their own positions among the gathered ones.
    """

    tokens: Tensor
    own_keys: Tensor
    queries: int
    keys: int
    masks: list[Mask]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """G rows, padded to one length of L keys (whole blocks).

    `blocks` int64 [G * num_kv_heads * L / block_size]: what to gather of the cache seen as single heads of blocks.
    `unwritten`: which gathered tokens (keys, then values) may be anything.
    """

    size: int
    keys: int
    blocks: Tensor
    unwritten: Tensor
    tiles: list[Tile]


@dataclass(frozen=True, slots=True)
class AttentionKey:
    """What a plan of attention depends on, beside the batch."""

    num_heads: int
    num_kv_heads: int
    block_size: int
    token_bytes: int
    window: int | None
    dtype: torch.dtype


@dataclass(slots=True)
class CpuPlan:
    """Everything that was derived for one step so far."""

    groups: dict[AttentionKey, list[RowGroup]] = field(default_factory=dict)
    slots: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    rotation: tuple[Tensor, Tensor, Tensor] | None = None


def cpu_plan(batch: StepBatch) -> CpuPlan:
    """The plan of this step, begun if there is none."""
    if not isinstance(batch.plan, CpuPlan):
        batch.plan = CpuPlan()
    return batch.plan


def head_slots(batch: StepBatch, num_kv_heads: int, block_size: int) -> Tensor:
    """Where each token's heads go in a cache seen as single head vectors; int64 [T, num_kv_heads]."""
    known = cpu_plan(batch).slots
    if (num_kv_heads, block_size) not in known:
        block, offset = batch.slots // block_size, batch.slots % block_size
        first = block * (num_kv_heads * block_size) + offset
        known[num_kv_heads, block_size] = first.unsqueeze(1) + torch.arange(num_kv_heads) * block_size
    return known[num_kv_heads, block_size]


def rotation(batch: StepBatch, cos_sin: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of the step's tokens, [T, 1, D] each: rotated = x * cos + roll(x, D / 2) * sin."""
    plan = cpu_plan(batch)
    if plan.rotation is None or plan.rotation[0] is not cos_sin:
        cos, sin = cos_sin.index_select(0, batch.positions).unsqueeze(1).chunk(2, dim=-1)
        plan.rotation = cos_sin, torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
    return plan.rotation[1], plan.rotation[2]


def row_groups(batch: StepBatch, key: AttentionKey) -> list[RowGroup]:
    """The groups in which the rows of this step are attended to."""
    known = cpu_plan(batch).groups
    if key not in known:
        known[key] = _plan_groups(batch, key)
    return known[key]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows as columns. Keys are counted from the first block that the row reads, `first_block`."""

    row: Ints
    start: Ints
    queries: Ints
    first_block: Ints
    first_query: Ints

    @property
    def keys(self) -> Ints:
        return self.first_query + self.queries

    def take(self, index: Ints) -> "_Rows":
        return _Rows(
            self.row[index], self.start[index], self.queries[index], self.first_block[index], self.first_query[index]
        )


def _plan_groups(batch: StepBatch, key: AttentionKey) -> list[RowGroup]:
    rows = _measure_rows(batch, key)
    rows = rows.take(np.lexsort((-rows.keys, -rows.queries)))
    tables = batch.block_tables.numpy()
    return [_plan_group(rows.take(members), tables, key) for members in _split(rows, key)]


def _measure_rows(batch: StepBatch, key: AttentionKey) -> _Rows:
    queries, context = batch.query_lens.astype(np.int64), batch.kv_lens.astype(np.int64)
    position = context - queries
    lowest = np.zeros_like(position) if key.window is None else np.maximum(position + 1 - key.window, 0)
    first_block = lowest // key.block_size
    start = batch.query_start.numpy()[:-1].astype(np.int64)
    return _Rows(np.arange(len(queries)), start, queries, first_block, position - first_block * key.block_size)


def _split(rows: _Rows, key: AttentionKey) -> Iterator[Ints]:
    """Cut rows, sorted by their queries, then their keys, into runs that waste little when padded."""
    begin, total = 0, len(rows.queries)
    while begin < total:
        count = np.arange(1, total - begin + 1)
        longest = np.maximum.accumulate(rows.keys[begin:])
        padded = count * longest * (rows.queries[begin] + _QUERY_OVERHEAD)
        useful = np.cumsum(rows.keys[begin:] * (rows.queries[begin:] + _QUERY_OVERHEAD))
        fits = (padded - useful <= _MAX_PADDING_WORK) & (count * longest * key.token_bytes <= _MAX_GROUP_BYTES)
        size = max(1, int(np.argmin(fits)) if not fits.all() else len(fits))
        yield np.arange(begin, begin + size)
        begin += size


def _plan_group(rows: _Rows, tables: NDArray[np.int32], key: AttentionKey) -> RowGroup:
    num_blocks = -(-int(rows.keys.max()) // key.block_size)
    keys, heads = num_blocks * key.block_size, np.arange(key.num_kv_heads)
    column = rows.first_block[:, None] + np.where(_in_row(rows, num_blocks, key), np.arange(num_blocks), 0)
    blocks = tables[rows.row[:, None], column].astype(np.int64)[:, None, :] * key.num_kv_heads + heads[:, None]
    first_token = (np.arange(len(rows.row))[:, None] * key.num_kv_heads + heads) * keys
    return RowGroup(
        size=len(rows.row),
        keys=keys,
        blocks=torch.from_numpy(blocks.ravel()),
        unwritten=torch.from_numpy(_unwritten(rows, num_blocks, first_token, key)),
        tiles=list(_plan_tiles(rows, first_token, keys, key)),
    )


def _in_row(rows: _Rows, num_blocks: int, key: AttentionKey) -> NDArray[np.bool_]:
    """Which of the blocks 0 to `num_blocks` each row has; bool [G, num_blocks]."""
    return np.arange(num_blocks) * key.block_size < rows.keys[:, None]


def _unwritten(rows: _Rows, num_blocks: int, first_token: Ints, key: AttentionKey) -> Ints:
    """Flat places of the gathered tokens that may be anything, even NaN: of all keys, then of all values.

    Those are the ones beyond the end in a row's last block. Padding repeats the row's first block, which is full
    unless it is the last one too.
    """
    full = ~_in_row(rows, num_blocks, key) & (rows.keys[:, None] >= key.block_size)
    beyond = np.arange(num_blocks * key.block_size) >= rows.keys[:, None]
    row, place = np.nonzero(beyond & ~np.repeat(full, key.block_size, axis=1))
    of_keys = (first_token[row] + place[:, None]).ravel()
    return np.concatenate((of_keys, of_keys + first_token.size * num_blocks * key.block_size))


def _plan_tiles(rows: _Rows, first_token: Ints, keys: int, key: AttentionKey) -> Iterator[Tile]:
    """Cut the queries, so that a tile's scores stay in cache and no tile multiplies far beyond the diagonal."""
    longest = int(rows.queries.max())
    size = int(np.clip(_MAX_TILE_SCORES // (len(rows.row) * key.num_heads * keys), *_TILE_QUERIES))
    for start in range(0, longest, size):
        place = np.minimum(np.arange(start, min(start + size, longest)), rows.queries[:, None] - 1)
        position = rows.first_query[:, None] + place
        # Whole blocks: a decode tile then takes all gathered keys, and multiplying a slice of them would copy it.
        seen = -(-int(position.max() + 1) // key.block_size) * key.block_size
        tokens = torch.from_numpy((rows.start[:, None] + place).ravel())
        own_keys = torch.from_numpy((first_token[:, :, None] + position[:, None, :]).ravel())
        yield Tile(tokens, own_keys, place.shape[1], seen, list(_plan_masks(position, seen, key)))


def _plan_masks(position: Ints, seen: int, key: AttentionKey) -> Iterator[Mask]:
    """Masks for the only keys that not every query sees: at the diagonal and beyond, and before the window."""
    low, high = int(position.min()), int(position.max())
    if low + 1 < seen:
        yield _mask(low + 1, seen, lambda keys: keys > position[..., None], key.dtype)
    if key.window is not None and high >= key.window:
        window = key.window
        yield _mask(0, high - window + 1, lambda keys: keys <= position[..., None] - window, key.dtype)


def _mask(start: int, stop: int, hidden: Callable[[Ints], NDArray[np.bool_]], dtype: torch.dtype) -> Mask:
    """The additive mask [G, 1, Q, 1, stop - start] of what is hidden."""
    hide = torch.from_numpy(hidden(np.arange(start, stop)))[:, None, :, None]
    return Mask(start, stop, torch.zeros(hide.shape, dtype=dtype).masked_fill_(hide, -torch.inf))
