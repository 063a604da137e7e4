"""silu(gate) * up over the packed output of the gate and up projections, in fp32, rounded once."""

import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.early_launch import await_predecessor, let_successor_begin
from headrace.kernels.gpu.launch import Arguments, Launch

_BLOCK = 1024


@triton.jit
def silu_and_mul_kernel(
    gate_up: tl.tensor,
    y: tl.tensor,
    width: tl.tensor,
    gate_up_stride: tl.tensor,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr = False,
) -> None:
    """One block of columns of one token a program."""
    let_successor_begin(EARLY)
    await_predecessor(EARLY)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    source = gate_up + row * gate_up_stride + column
    gate = tl.load(source, inside, other=0.0).to(tl.float32)
    up = tl.load(source + width, inside, other=0.0).to(tl.float32)
    value = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(y + row * width + column, value.to(y.dtype.element_ty), inside)


def silu_and_mul_launch(gate_up: Tensor, y: Tensor) -> Launch:
    """`Ops.silu_and_mul` of `[T, 2 * width]`, whose rows must be contiguous, into `y` [T, width]."""
    tokens, width = y.shape
    arguments: Arguments = {"gate_up": gate_up, "y": y, "width": width, "gate_up_stride": gate_up.stride(0)}
    return Launch(silu_and_mul_kernel, (tokens, triton.cdiv(width, _BLOCK)), arguments, {"BLOCK": _BLOCK})
