"""QK-norm, rotation and the writing of keys and values, in one pass over the packed QKV."""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.cache_dtype import FP8_LARGEST
from headrace.kernels.gpu.early_launch import await_predecessor, let_successor_begin
from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.ops import HeadShape, LayerCache, StepBatch

_FP8_LARGEST = tl.constexpr(FP8_LARGEST)
_TILE_ELEMENTS = 1024
"""Of the heads that one program handles."""


@triton.jit
def rope_and_cache_kernel(
    qkv: tl.tensor,
    q_out: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    cos_sin: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    positions: tl.tensor,
    slots: tl.tensor,
    qkv_stride: tl.tensor,
    eps: tl.tensor,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    EARLY: tl.constexpr = False,
) -> None:
    """`HEADS` of the packed heads of one token a program; a head is a first and a second half, padded to `HALF`.

    A negative slot writes nothing: a padding token's.
    """
    let_successor_begin(EARLY)
    await_predecessor(EARLY)
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    in_half = column < HEAD_DIM // 2
    is_query = head < NUM_HEADS
    is_value = head >= NUM_HEADS + NUM_KV_HEADS
    exists = (head < NUM_HEADS + 2 * NUM_KV_HEADS) & in_half
    source = qkv + token * qkv_stride + head * HEAD_DIM + column
    first = tl.load(source, exists, other=0.0).to(tl.float32)
    second = tl.load(source + HEAD_DIM // 2, exists, other=0.0).to(tl.float32)
    if q_norm is not None:
        first, second = _normed(first, second, q_norm, k_norm, column, is_query, is_value, eps, HEAD_DIM)
    angle = cos_sin + tl.load(positions + token) * HEAD_DIM + column
    cos = tl.load(angle, in_half, other=0.0)
    sin = tl.load(angle + HEAD_DIM // 2, in_half, other=0.0)
    turned_first = tl.where(is_value, first, first * cos - second * sin)
    turned_second = tl.where(is_value, second, second * cos + first * sin)
    query_place = q_out + (token * NUM_HEADS + head) * HEAD_DIM + column
    _store_halves(query_place, turned_first, turned_second, exists & is_query, HEAD_DIM)
    slot = tl.load(slots + token)
    written = exists & (slot >= 0)
    kv_head = tl.where(is_value, head - NUM_HEADS - NUM_KV_HEADS, head - NUM_HEADS)
    block_head = slot // BLOCK_SIZE * NUM_KV_HEADS + kv_head
    place = (block_head * BLOCK_SIZE + slot % BLOCK_SIZE) * HEAD_DIM + column
    is_key = (head >= NUM_HEADS) & (head < NUM_HEADS + NUM_KV_HEADS)
    _store_halves(k_cache + place, turned_first, turned_second, written & is_key, HEAD_DIM)
    _store_halves(v_cache + place, turned_first, turned_second, written & is_value, HEAD_DIM)


@triton.jit
def _normed(
    first: tl.tensor,
    second: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    column: tl.tensor,
    is_query: tl.tensor,
    is_value: tl.tensor,
    eps: tl.tensor,
    HEAD_DIM: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """RMSNorm of each query and key head; value heads stay as they are."""
    squares = tl.sum(first * first, axis=1) + tl.sum(second * second, axis=1)
    inverse = tl.rsqrt(squares / HEAD_DIM + eps)[:, None]
    in_half = column < HEAD_DIM // 2
    weight_first = _weight(q_norm, k_norm, column, in_half, is_query)
    weight_second = _weight(q_norm, k_norm, column + HEAD_DIM // 2, in_half, is_query)
    normed_first = tl.where(is_value, first, first * inverse * weight_first)
    normed_second = tl.where(is_value, second, second * inverse * weight_second)
    return normed_first, normed_second


@triton.jit
def _weight(
    q_norm: tl.tensor, k_norm: tl.tensor, column: tl.tensor, in_half: tl.tensor, is_query: tl.tensor
) -> tl.tensor:
    of_query = tl.load(q_norm + column, in_half, other=0.0).to(tl.float32)
    of_key = tl.load(k_norm + column, in_half, other=0.0).to(tl.float32)
    return tl.where(is_query, of_query, of_key)


@triton.jit
def _store_halves(
    place: tl.tensor, first: tl.tensor, second: tl.tensor, mask: tl.tensor, HEAD_DIM: tl.constexpr
) -> None:
    kind = place.dtype.element_ty
    if kind == tl.float8e4nv:
        first = tl.clamp(first, -_FP8_LARGEST, _FP8_LARGEST, propagate_nan=tl.PropagateNan.ALL)
        second = tl.clamp(second, -_FP8_LARGEST, _FP8_LARGEST, propagate_nan=tl.PropagateNan.ALL)
    tl.store(place, first.to(kind), mask)
    tl.store(place + HEAD_DIM // 2, second.to(kind), mask)


def rope_and_cache_launch(
    qkv: Tensor,
    q_out: Tensor,
    heads: HeadShape,
    cos_sin: Tensor,
    batch: StepBatch,
    cache: LayerCache,
    norms: tuple[Tensor, Tensor] | tuple[None, None],
    eps: float,
) -> Launch:
    """`Ops.rope_and_cache` of rows that are contiguous each, queries into `q_out` [T, num_heads, head_dim]."""
    half = triton.next_power_of_2(heads.head_dim // 2)
    packed_heads = heads.num_heads + 2 * heads.num_kv_heads
    tile_heads = min(max(_TILE_ELEMENTS // (2 * half), 1), triton.next_power_of_2(packed_heads))
    arguments: Arguments = {
        "qkv": qkv, "q_out": q_out, "k_cache": cache.k, "v_cache": cache.v, "cos_sin": cos_sin,
        "q_norm": norms[0], "k_norm": norms[1], "positions": batch.positions, "slots": batch.slots,
        "qkv_stride": qkv.stride(0), "eps": eps,
    }  # fmt: skip
    constants = {
        "NUM_HEADS": heads.num_heads, "NUM_KV_HEADS": heads.num_kv_heads, "HEAD_DIM": heads.head_dim,
        "BLOCK_SIZE": cache.k.shape[2], "HEADS": tile_heads, "HALF": half,
    }  # fmt: skip
    grid = (len(qkv), triton.cdiv(packed_heads, tile_heads))
    return Launch(rope_and_cache_kernel, grid, arguments, constants, num_warps=2)
