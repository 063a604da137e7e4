"""Attention of rows that add several tokens: prompts, chunks of them after a cached prefix, drafts to verify.

A program takes a tile of queries (tokens times the query heads of a key head) of one row, which it finds in
`query_start` by itself: the grid depends on the number of tokens and rows alone.
"""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.device import GpuTraits
from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.gpu.paged_tile import load_tile, needs_wide_places, token_places
from headrace.kernels.gpu.softmax import absorb_tile
from headrace.kernels.gpu.tiles import prefill_tiles
from headrace.kernels.ops import LayerCache, StepBatch

_LOG2_E = 1.4426950408889634


@triton.jit(do_not_specialize=["num_rows"])
def prefill_attention_kernel(
    q: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    out: tl.tensor,
    query_start: tl.tensor,
    context_lens: tl.tensor,
    block_tables: tl.tensor,
    num_rows: tl.tensor,
    q_stride: tl.tensor,
    table_stride: tl.tensor,
    scale: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Program (h, i) handles key head h of tile i, counted from the last: late tiles see more keys and start first.

    Rows that add one token are the decode kernel's. `scale` has log2 e multiplied in.
    """
    head = tl.program_id(0)
    tile_tokens = QUERIES // GROUP
    row, first = _tile_place(query_start, num_rows, tl.num_programs(1) - 1 - tl.program_id(1), tile_tokens)
    start = tl.load(query_start + row)
    added = tl.load(query_start + row + 1) - start
    if (first < added) & (added > 1):
        cached = tl.load(context_lens + row) - added
        query = tl.arange(0, QUERIES)
        column = tl.arange(0, DIM)
        token = first + query // GROUP
        exists = (token < added) & (query // GROUP < tile_tokens)
        mask = exists[:, None] & (column < HEAD_DIM)[None, :]
        heads = (head * GROUP + query % GROUP)[:, None] * HEAD_DIM + column[None, :]
        queries = tl.load(q + (start + token).to(tl.int64)[:, None] * q_stride + heads, mask, other=0.0)
        end = cached + tl.minimum(first + tile_tokens, added)
        result = _attend_tile(
            queries, k_cache, v_cache, block_tables + row.to(tl.int64) * table_stride, cached + token,
            cached + first, end, scale, head,
            NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, DIM, QUERIES, KEYS, WIDE,
        )  # fmt: skip
        place = out + (start + token).to(tl.int64)[:, None] * (NUM_KV_HEADS * GROUP * HEAD_DIM) + heads
        tl.store(place, result.to(out.dtype.element_ty), mask)


@triton.jit
def _tile_place(
    query_start: tl.tensor, num_rows: tl.tensor, tile: tl.tensor, tile_tokens: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """The row of a tile and its first token there; row r's tiles begin at query_start[r] // tile_tokens + r."""
    low = 0
    high = num_rows
    while high - low > 1:
        middle = (low + high) // 2
        begins = tl.load(query_start + middle) // tile_tokens + middle
        low = tl.where(begins <= tile, middle, low)
        high = tl.where(begins <= tile, high, middle)
    return low, (tile - low - tl.load(query_start + low) // tile_tokens) * tile_tokens


@triton.jit
def _attend_tile(
    queries: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    table: tl.tensor,
    position: tl.tensor,
    first_position: tl.tensor,
    end: tl.tensor,
    scale: tl.tensor,
    head: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """Keys that all queries of the tile see come first, without a mask; with a window none are treated so."""
    acc = tl.zeros([QUERIES, DIM], tl.float32)
    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(first_position - WINDOW + 1, 0)
    else:
        whole = (first_position + 1) // KEYS * KEYS
        for key in range(0, whole, KEYS):
            acc, largest, total = _absorb_keys(
                acc, largest, total, queries, k_cache, v_cache, table, position, key, end, scale, head,
                NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, DIM, KEYS, WIDE, False,
            )  # fmt: skip
        begin = whole
    for key in range(begin, end, KEYS):
        acc, largest, total = _absorb_keys(
            acc, largest, total, queries, k_cache, v_cache, table, position, key, end, scale, head,
            NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, DIM, KEYS, WIDE, True,
        )  # fmt: skip
    return acc / total[:, None]


@triton.jit
def _absorb_keys(
    acc: tl.tensor,
    largest: tl.tensor,
    total: tl.tensor,
    queries: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    table: tl.tensor,
    position: tl.tensor,
    first_key: tl.tensor,
    end: tl.tensor,
    scale: tl.tensor,
    head: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    DIM: tl.constexpr,
    KEYS: tl.constexpr,
    WIDE: tl.constexpr,
    MASKED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """One tile of keys and values from the paged cache into the running softmax."""
    key = first_key + tl.arange(0, KEYS)
    column = tl.arange(0, DIM)
    exists, in_head = key < end, column < HEAD_DIM
    place = token_places(table, key, head, exists, MASKED, NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, WIDE)
    pointers = k_cache + place[None, :] + column[:, None]
    keys = load_tile(pointers, exists[None, :], in_head[:, None], MASKED, HEAD_DIM != DIM)
    scores = tl.dot(queries, keys.to(queries.dtype), input_precision="ieee")
    if MASKED:
        seen = key[None, :] <= position[:, None]
        if WINDOW > 0:
            seen &= key[None, :] > position[:, None] - WINDOW
        scores = tl.where(seen, scores, float("-inf"))
    pointers = v_cache + place[:, None] + column[None, :]
    values = load_tile(pointers, exists[:, None], in_head[None, :], MASKED, HEAD_DIM != DIM)
    return absorb_tile(acc, largest, total, scores, values.to(queries.dtype), scale)


def prefill_attention_launch(
    q: Tensor,
    out: Tensor,
    cache: LayerCache,
    batch: StepBatch,
    scale: float,
    window: int | None,
    traits: GpuTraits,
) -> Launch:
    """The rows of `Ops.attend` that add several tokens, into their tokens of `out` [T, num_heads * head_dim]."""
    tokens, num_heads, head_dim = q.shape
    _, kv_heads, block_size, _ = cache.k.shape
    rows, group, dim = len(batch.context_lens), num_heads // kv_heads, triton.next_power_of_2(head_dim)
    tiles = prefill_tiles(dim, q.element_size(), tokens * num_heads, traits)
    arguments: Arguments = {
        "q": q, "k_cache": cache.k, "v_cache": cache.v, "out": out, "query_start": batch.query_start,
        "context_lens": batch.context_lens, "block_tables": batch.block_tables, "num_rows": rows,
        "q_stride": q.stride(0), "table_stride": batch.block_tables.stride(0), "scale": scale * _LOG2_E,
    }  # fmt: skip
    constants = {
        "NUM_KV_HEADS": kv_heads, "GROUP": group, "HEAD_DIM": head_dim, "BLOCK_SIZE": block_size,
        "WINDOW": window or 0, "DIM": dim, "QUERIES": tiles.queries, "KEYS": tiles.keys,
        "WIDE": needs_wide_places(cache),
    }  # fmt: skip
    grid = (kv_heads, tokens // (tiles.queries // group) + rows)
    return Launch(prefill_attention_kernel, grid, arguments, constants, tiles.num_warps, tiles.num_stages)
