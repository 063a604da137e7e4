"""The running softmax of attention (online softmax, arXiv:1805.02867): maximum, sum and weighted values, in base 2."""

import triton
import triton.language as tl


@triton.jit
def absorb_tile(
    acc: tl.tensor, largest: tl.tensor, total: tl.tensor, scores: tl.tensor, values: tl.tensor, scale: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Take a tile of scores [M, N] (-inf: not seen) and values [N, D] into the state of M queries.

    `scale` is positive and has log2 e multiplied in; `largest` is in its units. A query that has seen nothing yet
    keeps weight 0, not NaN.
    """
    new_largest = tl.maximum(largest, tl.max(scores, axis=1) * scale)
    shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
    weights = tl.exp2(scores * scale - shift[:, None])
    fade = tl.exp2(largest - shift)
    product = tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return acc * fade[:, None] + product, new_largest, total * fade + tl.sum(weights, axis=1)
