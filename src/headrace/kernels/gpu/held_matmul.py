"""A linear layer for some tokens, 3 to 16 say, of a model so small that the card's registers hold the whole layer.

Each program loads all inputs of 16 output rows before it waits for its predecessor, so that memory is read while the
kernels before it still compute; then it multiplies by matrix instructions, its inputs split between its warps. A
layer that does not fit would come in turns, each of which waits for memory anew: `small_matmul` is for those.
"""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.early_launch import await_predecessor, let_successor_begin
from headrace.kernels.gpu.launch import Arguments, Launch
from headrace.kernels.gpu.linear_tiles import HeldTiles

_LEAST_TOKENS = 16
"""Rows of the left operand of a matrix instruction."""


@triton.jit(do_not_specialize=["tokens"])
def held_matmul_kernel(
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
    EARLY: tl.constexpr = False,
) -> None:
    """y = x @ weight.T; silu(gate) * up of the weight's two halves if GATED; y += it, in float32, if ADDED.

    `OUT` counts the columns of `y` and is a multiple of ROWS, `IN` one of SPLITS * DEPTH. `bias` may be None.
    """
    let_successor_begin(EARLY)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    depth = tl.arange(0, SPLITS)[:, None] * DEPTH + tl.arange(0, DEPTH)[None, :]
    place = weight + row.to(tl.int64)[None, :, None] * IN + depth[:, None, :]
    held = _held(place, IN, SPLITS * DEPTH)
    held_up = _held(place + OUT * IN, IN, SPLITS * DEPTH) if GATED else held
    await_predecessor(EARLY)
    token = tl.arange(0, TOKENS)
    left = x + token[None, :, None] * x_stride + depth[:, None, :]
    acc = tl.zeros([SPLITS, TOKENS, ROWS], tl.float32)
    up_acc = acc
    for turn in tl.static_range(IN // (SPLITS * DEPTH)):
        values = tl.load(left + turn * SPLITS * DEPTH, (token < tokens)[None, :, None], other=0.0)
        acc = tl.dot(values, tl.trans(held[turn], 0, 2, 1), acc)
        if GATED:
            up_acc = tl.dot(values, tl.trans(held_up[turn], 0, 2, 1), up_acc)
    result = tl.sum(acc, axis=0)
    if bias is not None:
        result += tl.load(bias + row)[None, :]
    if GATED:
        up = tl.sum(up_acc, axis=0)
        if bias is not None:
            up += tl.load(bias + OUT + row)[None, :]
        result = result / (1.0 + tl.exp(-result)) * up
    target = y + token[:, None] * OUT + row[None, :]
    exists = (token < tokens)[:, None] & (row >= 0)[None, :]
    if ADDED:
        result += tl.load(target, exists, other=0.0)
    tl.store(target, result.to(y.dtype.element_ty), exists)


@triton.jit
def _held(place: tl.tensor, IN: tl.constexpr, STEP: tl.constexpr) -> tuple[tl.tensor, ...]:
    """All inputs of the rows at `place`, STEP at a time."""
    held: tl.tuple = (tl.load(place),)
    for start in tl.static_range(STEP, IN, STEP):
        held = held + (tl.load(place + start),)  # noqa: RUF005  (Triton knows no unpacking)
    return held


def held_matmul_launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    tiles: HeldTiles,
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
    return Launch(held_matmul_kernel, (outputs // tiles.rows,), arguments, constants, tiles.splits)
