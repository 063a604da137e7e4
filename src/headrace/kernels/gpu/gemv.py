"""A linear layer for very few tokens: the weight is read once, at the speed of memory, by multiply and add.

A program holds all of a few output rows in registers, loaded before it waits for its predecessor. Around the product
may stand what a decoder has there: RMSNorm of the tokens before it (each program for itself: they are few), and after
it silu(gate) * up, or the addition to the residual stream.
"""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.early_launch import await_predecessor, let_successor_begin
from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.gpu.linear_tiles import GemvTiles


@triton.jit
def gemv_kernel(
    x: tl.tensor,
    norm: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    x_stride: tl.tensor,
    eps: tl.tensor,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
    WIDTH: tl.constexpr,
    GATED: tl.constexpr,
    ADDED: tl.constexpr,
    EARLY: tl.constexpr = False,
) -> None:
    """y = (norm of) x @ weight.T; of gate and up rows if GATED; y += it, in float32, if ADDED.

    `OUT` counts the columns of `y`; `norm` and `bias` may be None. A row lies as [CHUNKS, 1, WIDTH].
    """
    let_successor_begin(EARLY)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, CHUNKS)[:, None, None] * WIDTH + tl.arange(0, WIDTH)[None, None, :]
    exists = (row < OUT)[None, :, None] & (column < IN)
    place = weight + row.to(tl.int64)[None, :, None] * IN + column
    rows = _rows(place, exists, OUT % ROWS != 0 or CHUNKS * WIDTH != IN)
    ups = _rows(place + OUT * IN, exists, OUT % ROWS != 0 or CHUNKS * WIDTH != IN) if GATED else rows
    scale = tl.load(norm + column, column < IN, other=0.0).to(tl.float32) if norm is not None else 1.0
    offset = tl.load(bias + row, row < OUT, other=0.0).to(tl.float32) if bias is not None else 0.0
    up_offset = tl.load(bias + OUT + row, row < OUT, other=0.0).to(tl.float32) if bias is not None and GATED else 0.0
    await_predecessor(EARLY)
    for token in tl.static_range(TOKENS):
        values = tl.load(x + token * x_stride + column, column < IN, other=0.0).to(tl.float32)
        inverse = tl.rsqrt(_sum(values * values) / IN + eps) if norm is not None else 1.0
        scaled = values * scale
        result = _sum(rows * scaled) * inverse + offset
        if GATED:
            result = result / (1.0 + tl.exp(-result)) * (_sum(ups * scaled) * inverse + up_offset)
        target = y + token * OUT + row
        if ADDED:
            result += tl.load(target, row < OUT, other=0.0)
        tl.store(target, result.to(y.dtype.element_ty), row < OUT)


@triton.jit
def _rows(place: tl.tensor, exists: tl.tensor, MASKED: tl.constexpr) -> tl.tensor:
    return tl.load(place, exists, other=0.0) if MASKED else tl.load(place)


@triton.jit
def _sum(products: tl.tensor) -> tl.tensor:
    """[CHUNKS, R, WIDTH] to [R]: within a thread first."""
    return tl.sum(tl.sum(products, axis=0), axis=1)


def gemv_launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    tiles: GemvTiles,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    added: bool = False,
) -> Launch:
    """`x` [T, in] with contiguous rows, `weight` [out, in] (gated: [2 * out, in]) into `y` [T, out], contiguous."""
    (tokens, inputs), outputs = x.shape, y.shape[1]
    arguments: Arguments = {
        "x": x, "norm": norm, "weight": weight, "bias": bias, "y": y, "x_stride": x.stride(0), "eps": eps,
    }  # fmt: skip
    constants = {
        "IN": inputs, "OUT": outputs, "TOKENS": tokens, "ROWS": tiles.rows,
        "CHUNKS": triton.next_power_of_2(triton.cdiv(inputs, tiles.width)), "WIDTH": tiles.width,
        "GATED": gated, "ADDED": added,
    }  # fmt: skip
    return Launch(gemv_kernel, (triton.cdiv(outputs, tiles.rows),), arguments, constants, tiles.num_warps)
