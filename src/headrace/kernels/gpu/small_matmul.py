"""A linear layer for some tokens, 3 to 16 say, that no kernel holds: too many for `gemv`, few for a matrix product.

The weight is the left operand, so that few tokens waste little of a matrix instruction, and its inputs are split
between the warps of a program: with 16 output rows a program, even a narrow layer has work for many multiprocessors.
Unlike `gemv` it is not begun before its predecessor is complete: on an H100 that made it slower.
"""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.gpu.linear_tiles import MatmulTiles

_LEAST_TOKENS = 16
"""Columns of the right operand that Triton multiplies at least."""


@triton.jit(do_not_specialize=["tokens"])
def small_matmul_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    tokens: tl.tensor,
    x_stride: tl.tensor,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    DEPTH: tl.constexpr,
    GATED: tl.constexpr,
    ADDED: tl.constexpr,
) -> None:
    """y = x @ weight.T; silu(gate) * up of the weight's two halves if GATED; y += it, in float32, if ADDED.

    `OUT` counts the columns of `y` and is a multiple of ROWS, `IN` one of SPLITS * DEPTH. `bias` may be None.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token = tl.arange(0, TOKENS)
    depth = tl.arange(0, SPLITS)[:, None] * DEPTH + tl.arange(0, DEPTH)[None, :]
    left = weight + row.to(tl.int64)[None, :, None] * IN + depth[:, None, :]
    right = x + token[None, None, :] * x_stride + depth[:, :, None]
    result, up = _multiply(left, right, (token < tokens)[None, None, :], IN, OUT, TOKENS, ROWS, SPLITS, DEPTH, GATED)
    if bias is not None:
        result += tl.load(bias + row)[:, None]
    if GATED:
        if bias is not None:
            up += tl.load(bias + OUT + row)[:, None]
        result = result / (1.0 + tl.exp(-result)) * up
    target = y + token[None, :] * OUT + row[:, None]
    exists = (token < tokens)[None, :] & (row >= 0)[:, None]
    if ADDED:
        result += tl.load(target, exists, other=0.0)
    tl.store(target, result.to(y.dtype.element_ty), exists)


@triton.jit
def _multiply(
    left: tl.tensor,
    right: tl.tensor,
    exists: tl.tensor,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    DEPTH: tl.constexpr,
    GATED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The products [ROWS, TOKENS] in float32, of the first half of the weight and, if GATED, of the second."""
    acc = tl.zeros([SPLITS, ROWS, TOKENS], tl.float32)
    up_acc = acc
    for start in range(0, IN, SPLITS * DEPTH):
        values = tl.load(right + start, exists, other=0.0)
        acc = tl.dot(tl.load(left + start), values, acc)
        if GATED:
            up_acc = tl.dot(tl.load(left + OUT * IN + start), values, up_acc)
    return tl.sum(acc, axis=0), tl.sum(up_acc, axis=0) if GATED else up_acc


def small_matmul_launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    tiles: MatmulTiles,
    *,
    gated: bool = False,
    added: bool = False,
) -> Launch:
    """`x` [T, in] with contiguous rows, `weight` [out, in] (gated: [2 * out, in]) into `y` [T, out], contiguous."""
    (tokens, inputs), outputs = x.shape, y.shape[1]
    arguments: Arguments = {
        "x": x, "weight": weight, "bias": bias, "y": y, "tokens": tokens, "x_stride": x.stride(0),
    }  # fmt: skip
    constants = {
        "IN": inputs, "OUT": outputs, "TOKENS": max(triton.next_power_of_2(tokens), _LEAST_TOKENS), "ROWS": tiles.rows,
        "SPLITS": tiles.splits, "DEPTH": tiles.depth, "GATED": gated, "ADDED": added,
    }  # fmt: skip
    grid = (outputs // tiles.rows,)
    return Launch(small_matmul_kernel, grid, arguments, constants, tiles.splits, tiles.num_stages)
