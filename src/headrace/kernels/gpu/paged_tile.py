"""Tiles of keys and values out of the paged cache."""

import triton
import triton.language as tl

from headrace.kernels.ops import LayerCache


def needs_wide_places(cache: LayerCache) -> bool:
    """Whether places in a layer's cache exceed 32 bits: narrow ones take half the registers and instructions."""
    return cache.k.numel() >= 1 << 31


@triton.jit
def token_places(
    table: tl.tensor,
    token: tl.tensor,
    head: tl.tensor,
    exists: tl.tensor,
    MASKED: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """Where the head of each token of a row begins in the cache, int64 if WIDE; all exist if not MASKED."""
    place = table + token // BLOCK_SIZE
    block = tl.load(place, exists, other=0) if MASKED else tl.load(place)
    if WIDE:
        block = block.to(tl.int64)
    return ((block * NUM_KV_HEADS + head) * BLOCK_SIZE + token % BLOCK_SIZE) * HEAD_DIM


@triton.jit
def load_tile(
    pointers: tl.tensor, exists: tl.tensor, in_head: tl.tensor, MASKED: tl.constexpr, PADDED: tl.constexpr
) -> tl.tensor:
    """A tile of heads, 0 where a token does not exist (if MASKED) and beyond the head (if PADDED)."""
    if MASKED:
        mask = (exists & in_head) if PADDED else exists
        tile = tl.load(pointers, mask, other=0.0)
    elif PADDED:
        tile = tl.load(pointers, in_head, other=0.0)
    else:
        tile = tl.load(pointers)
    return tile


@triton.constexpr_function
def multiplied_in(activations: tl.dtype, cached: tl.dtype) -> tl.dtype:
    """The dtype of attention's products: the activations', but float16 for bfloat16 over a cache in fp8.

    Cards widen fp8 to float16 in one instruction, to bfloat16 in several.
    """
    return tl.float16 if cached == tl.float8e4nv and activations == tl.bfloat16 else activations


@triton.jit
def widened(tile: tl.tensor, kind: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr) -> tl.tensor:
    """A tile of values [ROWS, COLUMNS] in the dtype that is multiplied in.

    One of fp8 is taken apart and put together again, which costs nothing: without that the compiler casts only after
    the tile has gone through shared memory, and reads it from there byte by byte, since it transposes no bytes.
    """
    wide = tile.to(kind)
    if tile.dtype == tl.float8e4nv:
        even, odd = tl.split(tl.reshape(wide, [ROWS, COLUMNS // 2, 2]))
        wide = tl.reshape(tl.join(even, odd), [ROWS, COLUMNS])
    return wide
