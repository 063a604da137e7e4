"""What is told of a token: its log probability and rank, and the most likely tokens with theirs.

The likeliest token of a row is the likeliest of the tile with the largest maximum; what is left of that tile then has
a smaller maximum, and so the next one is found.
"""

import triton
import triton.language as tl

from headrace.kernels.gpu.row_params import MOST_DESCRIBED
from headrace.kernels.gpu.sampling_noise import LOG2_E
from headrace.kernels.gpu.sampling_penalties import load_penalized
from headrace.kernels.gpu.sampling_row import LOWEST
from headrace.kernels.gpu.sampling_truncation import count_from, list_tiles, ordered

_MOST = tl.constexpr(MOST_DESCRIBED)


@triton.jit
def describe(
    description: tl.tensor,
    token: tl.tensor,
    most: tl.tensor,
    row: tl.tuple,
    maxima: tl.tensor,
    masses: tl.tensor,
    listed: tl.tensor,
    vocab_size: tl.tensor,
    MOST_TILES: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    """Write the description of one row's token, with its `most` likeliest ones, DESCRIPTION_FIELDS int32.

    `maxima` and `masses` are those of the row's tiles at temperature 1; `listed` int32, one a tile, is scratch memory.
    """
    logits, seen, row_params, _ = row
    row = (logits, seen, row_params, False)  # as it came
    tile = tl.arange(0, MOST_TILES)
    exists = tile < tl.cdiv(vocab_size, TILE)
    tops = tl.load(maxima + tile, exists, other=LOWEST)
    largest = tl.max(tops)
    mass = tl.sum(tl.load(masses + tile, exists, other=0.0) * tl.exp2((tops - largest) * LOG2_E))
    x = load_penalized(row, token, True)
    above = ordered(x) + 1
    count = list_tiles(ordered(tops), tile, above, listed)
    tl.store(description, token)
    tl.store(description + 1, _logprob(x, largest, mass).to(tl.int32, bitcast=True))
    tl.store(description + 2, count_from(row, above, listed, count, vocab_size, TILE, TILES) + 1)
    last, last_token = largest, tl.full([], -1, tl.int32)
    for place in range(most):
        top = tl.max(tops)
        chosen = tl.min(tl.where((tops == top) & exists, tile, MOST_TILES))
        other = chosen * TILE + tl.arange(0, TILE)
        value = load_penalized(row, other, other < vocab_size)
        left = (other < vocab_size) & ((value < last) | ((value == last) & (other > last_token)))
        last = tl.max(tl.where(left, value, LOWEST))
        last_token = tl.min(tl.where(left & (value == last), other, vocab_size))
        left &= other != last_token
        tops = tl.where(tile == chosen, tl.max(tl.where(left, value, float("-inf"))), tops)
        tl.store(description + 3 + place, last_token)
        tl.store(description + 3 + _MOST + place, _logprob(last, largest, mass).to(tl.int32, bitcast=True))


@triton.jit
def _logprob(x: tl.tensor, largest: tl.tensor, mass: tl.tensor) -> tl.tensor:
    """Of a logit, where `mass` is the sum of all probabilities relative to the largest logit's."""
    return tl.where(x > LOWEST, x - largest - tl.log(mass), float("-inf"))
