"""Attention of rows that add one token: split over the context, the query heads of a key head together (GQA packing).

A fixed number of programs for each key head takes chunks from the step's list in turn. A chunk's result goes to
memory; the program that finishes the last chunk of a row and key head merges them, in the order of the chunks, so that
the result does not depend on who came last.
"""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.decode_plan import ITEM_FIELDS, DecodeWork
from headrace.kernels.gpu.device import GpuTraits
from headrace.kernels.gpu.early_launch import await_predecessor, let_successor_begin
from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.gpu.merge import merge_chunks
from headrace.kernels.gpu.paged_tile import load_tile, multiplied_in, needs_wide_places, token_places, widened
from headrace.kernels.gpu.softmax import absorb_tile
from headrace.kernels.gpu.tiles import decode_tiles
from headrace.kernels.ops import LayerCache, StepBatch

_LOG2_E = 1.4426950408889634
_LEAST_QUERIES = 16
"""Rows of a matrix instruction."""
_MERGED_ELEMENTS = 2048
"""Of partial results that a warp adds at a time."""


@triton.jit
def decode_attention_kernel(
    q: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    out: tl.tensor,
    items: tl.tensor,
    num_items: tl.tensor,
    block_tables: tl.tensor,
    partial: tl.tensor,
    weight: tl.tensor,
    arrivals: tl.tensor,
    q_stride: tl.tensor,
    table_stride: tl.tensor,
    scale: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    FIELDS: tl.constexpr,
    QUERIES: tl.constexpr,
    DIM: tl.constexpr,
    KEYS: tl.constexpr,
    MERGED: tl.constexpr,
    MERGED_QUERIES: tl.constexpr,
    WIDE: tl.constexpr,
    EARLY: tl.constexpr = False,
) -> None:
    """Program (h, i) handles key head h of items i, i + programs, ...; `scale` has log2 e multiplied in."""
    let_successor_begin(EARLY)
    await_predecessor(EARLY)
    kind: tl.constexpr = multiplied_in(q.dtype.element_ty, k_cache.dtype.element_ty)
    head = tl.program_id(0)
    query = tl.arange(0, QUERIES)
    column = tl.arange(0, DIM)
    in_query = (query < GROUP)[:, None] & (column < HEAD_DIM)[None, :]
    within = query[:, None] * HEAD_DIM + column[None, :]
    for index in range(tl.program_id(1), tl.load(num_items), tl.num_programs(1)):
        item = items + index * FIELDS
        row = tl.load(item).to(tl.int64)
        token = tl.load(item + 1).to(tl.int64)
        splits = tl.load(item + 4)
        queries = tl.load(q + token * q_stride + head * GROUP * HEAD_DIM + within, in_query, other=0.0).to(kind)
        acc, log_weight = _attend_chunk(
            queries, k_cache, v_cache, block_tables + row * table_stride, tl.load(item + 2), tl.load(item + 3), scale,
            head, NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, QUERIES, DIM, KEYS, WIDE,
        )  # fmt: skip
        result = out + (token * NUM_KV_HEADS + head) * GROUP * HEAD_DIM
        if splits == 1:
            tl.store(result + within, acc.to(out.dtype.element_ty), in_query)
        else:
            place = (index * NUM_KV_HEADS + head).to(tl.int64) * GROUP
            tl.store(partial + place * HEAD_DIM + within, acc, in_query)
            tl.store(weight + place + query, log_weight, query < GROUP)
            unit = arrivals + row * NUM_KV_HEADS + head
            tl.debug_barrier()
            if tl.atomic_add(unit, 1, sem="acq_rel") == splits - 1:
                tl.store(unit, 0)
                first = ((index - tl.load(item + 5)) * NUM_KV_HEADS + head).to(tl.int64) * GROUP
                merge_chunks(
                    partial, weight, result, first, splits, NUM_KV_HEADS * GROUP, GROUP, HEAD_DIM, MAX_SPLITS,
                    MERGED_QUERIES, DIM, MERGED,
                )  # fmt: skip


@triton.jit
def _attend_chunk(
    queries: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    table: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    scale: tl.tensor,
    head: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    QUERIES: tl.constexpr,
    DIM: tl.constexpr,
    KEYS: tl.constexpr,
    WIDE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The result over the keys `begin` to `end` and the base-2 logarithm of the sum of its weights."""
    column = tl.arange(0, DIM)
    in_head = column < HEAD_DIM
    acc = tl.zeros([QUERIES, DIM], tl.float32)
    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    for start in range(begin, end, KEYS):
        position = start + tl.arange(0, KEYS)
        seen = position < end
        place = token_places(table, position, head, seen, True, NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, WIDE)
        pointers = k_cache + place[None, :] + column[:, None]
        keys = load_tile(pointers, seen[None, :], in_head[:, None], True, HEAD_DIM != DIM)
        pointers = v_cache + place[:, None] + column[None, :]
        values = load_tile(pointers, seen[:, None], in_head[None, :], True, HEAD_DIM != DIM)
        scores = tl.dot(queries, keys.to(queries.dtype), input_precision="ieee")
        scores = tl.where(seen[None, :], scores, float("-inf"))
        acc, largest, total = absorb_tile(acc, largest, total, scores, widened(values, queries.dtype, KEYS, DIM), scale)
    return acc / total[:, None], largest + tl.log2(total)


def decode_attention_launch(
    q: Tensor,
    out: Tensor,
    cache: LayerCache,
    batch: StepBatch,
    work: DecodeWork,
    scale: float,
    traits: GpuTraits,
) -> Launch:
    """The decoding rows of `Ops.attend`, into their tokens of `out` [T, num_heads * head_dim]."""
    _, num_heads, head_dim = q.shape
    _, kv_heads, block_size, _ = cache.k.shape
    group, dim = num_heads // kv_heads, triton.next_power_of_2(head_dim)
    grouped = triton.next_power_of_2(group)
    queries = max(grouped, _LEAST_QUERIES)
    tiles = decode_tiles(queries, dim, q.element_size(), cache.k.element_size(), work.rule.latency_bound, traits)
    arguments: Arguments = {
        "q": q, "k_cache": cache.k, "v_cache": cache.v, "out": out, "items": work.items, "num_items": work.num_items,
        "block_tables": batch.block_tables, "partial": work.partial, "weight": work.weight, "arrivals": work.arrivals,
        "q_stride": q.stride(0), "table_stride": batch.block_tables.stride(0), "scale": scale * _LOG2_E,
    }  # fmt: skip
    constants = {
        "NUM_KV_HEADS": kv_heads, "GROUP": group, "HEAD_DIM": head_dim, "BLOCK_SIZE": block_size,
        "MAX_SPLITS": work.rule.max_splits, "FIELDS": ITEM_FIELDS, "QUERIES": queries, "DIM": dim, "KEYS": tiles.keys,
        "MERGED_QUERIES": grouped, "MERGED": max(_MERGED_ELEMENTS * tiles.num_warps // (grouped * dim), 1),
        "WIDE": needs_wide_places(cache),
    }  # fmt: skip
    programs = triton.cdiv(traits.num_multiprocessors * tiles.programs, kv_heads)
    grid = (kv_heads, min(programs, len(work.items)))
    return Launch(decode_attention_kernel, grid, arguments, constants, tiles.num_warps, tiles.num_stages)
