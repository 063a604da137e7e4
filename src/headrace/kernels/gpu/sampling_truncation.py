"""Drawing from the tokens that min_p, top_k and top_p leave, without a sort.

What is left are the tokens whose logit reaches a bound, so that all there is to find is the bound: the k-th largest
logit by halving the interval it is in, and top_p's by rejection. The best token of a set with noise is the best of any
subset that it lies in; if it lies outside, all of the subset has larger logits, and the search goes on among those.

Logits are compared by their bits as ordered integers. The maxima of tiles say which of them must be read at all.
"""

import triton
import triton.language as tl

from headrace.kernels.gpu.sampling_noise import LOG2_E, log_exponential, noise_keys
from headrace.kernels.gpu.sampling_penalties import load_penalized
from headrace.kernels.gpu.sampling_row import (
    LOWEST,
    MIN_P,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    load_float,
)


@triton.jit
def draw_truncated(
    row: tl.tuple,
    position: tl.tensor,
    token: tl.tensor,
    maxima: tl.tensor,
    masses: tl.tensor,
    listed: tl.tensor,
    vocab_size: tl.tensor,
    MOST_TILES: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
    DROPPED_BITS: tl.constexpr,
) -> tl.tensor:
    """The token of one row; `token` is the best of all. `listed` int32, one a tile, is scratch memory.

    The lowest `DROPPED_BITS` of a logit's 32 do not vary in the dtype that it came from, without a penalty.
    """
    _, _, row_params, has_penalty = row
    dropped = tl.where(has_penalty, 0, DROPPED_BITS)
    tile = tl.arange(0, MOST_TILES)
    top_of_tile = tl.load(maxima + tile, tile < tl.cdiv(vocab_size, TILE), other=LOWEST)
    largest, tops = tl.max(top_of_tile), ordered(top_of_tile)
    scale = LOG2_E / load_float(row_params + TEMPERATURE)
    lowest = ordered(tl.full([], LOWEST, tl.float32))
    bound, min_p = lowest, load_float(row_params + MIN_P)
    if min_p > 0.0:
        bound = tl.maximum(ordered(largest + tl.log2(min_p) / scale), lowest)
    if tl.load(row_params + TOP_K) > 0:
        bound = _kth_largest(
            row, tl.load(row_params + TOP_K), bound, tops, tile, listed, vocab_size, TILE, TILES, dropped
        )
    key, other_key = noise_keys(row_params + SEED, position)
    mass_of_tile = tl.load(masses + tile, tile < tl.cdiv(vocab_size, TILE), other=0.0)
    mass = tl.sum(mass_of_tile * tl.exp2((top_of_tile - largest) * scale))
    if bound > lowest:
        count = list_tiles(tops, tile, bound, listed)
        token = _best_from(row, bound, scale, key, other_key, listed, count, vocab_size, TILE, TILES)
        mass = _mass_from(row, bound, largest, scale, listed, count, vocab_size, TILE, TILES)
    top_p = load_float(row_params + TOP_P)
    if top_p < 1.0:
        limit = top_p * tl.maximum(mass, 1.0)  # the likeliest token's is 1: without a finite logit the loop must end
        above = _next_bound(row, token)
        count = list_tiles(tops, tile, above, listed)
        while _mass_from(row, above, largest, scale, listed, count, vocab_size, TILE, TILES) >= limit:
            token = _best_from(row, above, scale, key, other_key, listed, count, vocab_size, TILE, TILES)
            above = _next_bound(row, token)
            count = list_tiles(tops, tile, above, listed)
    return token


@triton.jit
def ordered(x: tl.tensor) -> tl.tensor:
    """Floats as integers of the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _next_bound(row: tl.tuple, token: tl.tensor) -> tl.tensor:
    """The bound that a token just misses."""
    return ordered(load_penalized(row, token, True)) + 1


@triton.jit
def list_tiles(tops: tl.tensor, tile: tl.tensor, bound: tl.tensor, listed: tl.tensor) -> tl.tensor:
    """List the tiles that reach `bound`, in order; how many these are."""
    reaches = (tops >= bound).to(tl.int32)
    tl.debug_barrier()
    tl.store(listed + tl.cumsum(reaches, 0) - 1, tile, reaches > 0)
    tl.debug_barrier()
    return tl.sum(reaches)


@triton.jit
def _load_listed(
    row: tl.tuple,
    listed: tl.tensor,
    start: tl.tensor,
    count: tl.tensor,
    vocab_size: tl.tensor,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The tokens of the listed tiles from `start` on, and their logits."""
    place = start + tl.arange(0, TILES)
    tile = tl.load(listed + place, place < count, other=vocab_size)
    token = tile[:, None] * TILE + tl.arange(0, TILE)[None, :]
    exists = (place < count)[:, None] & (token < vocab_size)
    return token, load_penalized(row, token, exists)


@triton.jit
def _kth_largest(
    row: tl.tuple,
    k: tl.tensor,
    bound: tl.tensor,
    tops: tl.tensor,
    tile: tl.tensor,
    listed: tl.tensor,
    vocab_size: tl.tensor,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
    dropped: tl.tensor,
) -> tl.tensor:
    """The k-th largest logit, or `bound` if that is larger; the lowest `dropped` bits of a logit do not vary.

    The k-th largest maximum of a tile comes first: k tokens reach it, so that only tiles that reach it matter.
    """
    low, high = bound >> dropped, (tl.max(tops) >> dropped) + 1
    end = high
    while low + 1 < end:
        middle = _between(low, end)
        enough = tl.sum((tops >> dropped >= middle).to(tl.int32)) >= k
        low, end = tl.where(enough, middle, low), tl.where(enough, end, middle)
    count = list_tiles(tops, tile, low << dropped, listed)
    while low + 1 < high:
        middle = _between(low, high)
        enough = count_from(row, middle << dropped, listed, count, vocab_size, TILE, TILES) >= k
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
    return tl.maximum(low << dropped, bound)


@triton.jit
def _between(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Their mean, rounded down; their difference may be more than an integer holds."""
    return (low & high) + ((low ^ high) >> 1)


@triton.jit
def count_from(
    row: tl.tuple,
    bound: tl.tensor,
    listed: tl.tensor,
    count: tl.tensor,
    vocab_size: tl.tensor,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
) -> tl.tensor:
    """How many tokens reach `bound`."""
    found = tl.zeros([TILES, TILE], tl.int32)
    for start in range(0, count, TILES):
        _, x = _load_listed(row, listed, start, count, vocab_size, TILE, TILES)
        found += (ordered(x) >= bound).to(tl.int32)
    return tl.sum(found)


@triton.jit
def _mass_from(
    row: tl.tuple,
    bound: tl.tensor,
    largest: tl.tensor,
    scale: tl.tensor,
    listed: tl.tensor,
    count: tl.tensor,
    vocab_size: tl.tensor,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
) -> tl.tensor:
    """The probability of the tokens that reach `bound`, relative to that of the likeliest token."""
    mass = tl.zeros([TILES, TILE], tl.float32)
    for start in range(0, count, TILES):
        _, x = _load_listed(row, listed, start, count, vocab_size, TILE, TILES)
        mass += tl.where(ordered(x) >= bound, tl.exp2((x - largest) * scale), 0.0)
    return tl.sum(mass)


@triton.jit
def _best_from(
    row: tl.tuple,
    bound: tl.tensor,
    scale: tl.tensor,
    key: tl.tensor,
    other_key: tl.tensor,
    listed: tl.tensor,
    count: tl.tensor,
    vocab_size: tl.tensor,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
) -> tl.tensor:
    """The token of the best score among those that reach `bound`; the lowest of equals."""
    best = tl.full([TILES, TILE], float("-inf"), tl.float32)
    found = tl.full([TILES, TILE], 0, tl.int32) + vocab_size
    for start in range(0, count, TILES):
        token, x = _load_listed(row, listed, start, count, vocab_size, TILE, TILES)
        score = x * scale - log_exponential(token, key, other_key)
        better = (ordered(x) >= bound) & (token < vocab_size) & ((score > best) | (found == vocab_size))
        best, found = tl.where(better, score, best), tl.where(better, token, found)
    return tl.minimum(tl.min(tl.where(best == tl.max(best), found, vocab_size)), vocab_size - 1)
