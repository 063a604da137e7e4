"""RMSNorm of a row a program, in fp32, with the residual stream added in place where there is one."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from headrace.kernels.gpu.early_launch import await_predecessor, let_successor_begin
from headrace.kernels.gpu.launch import Arguments, Launch


@triton.jit
def rms_norm_kernel(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    y: tl.tensor,
    width: tl.tensor,
    x_stride: tl.tensor,
    eps: tl.tensor,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr = False,
) -> None:
    """y = norm(x), or residual += x and y = norm(residual); `residual` fp32 [T, width] or None."""
    let_successor_begin(EARLY)
    await_predecessor(EARLY)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * x_stride + column, inside, other=0.0).to(tl.float32)
    if residual is not None:
        place = residual + row * width + column
        value += tl.load(place, inside, other=0.0)
        tl.store(place, value, inside)
    inverse = tl.rsqrt(tl.sum(value * value) / width + eps)
    scaled = value * inverse * tl.load(weight + column, inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, scaled.to(y.dtype.element_ty), inside)


def rms_norm_launch(x: Tensor, residual: Tensor | None, weight: Tensor, y: Tensor, eps: float) -> Launch:
    """`Ops.rms_norm` or `Ops.add_rms_norm` of `[T, width]`, whose rows must be contiguous, into `y`."""
    tokens, width = x.shape
    block = triton.next_power_of_2(width)
    arguments: Arguments = {"x": x, "residual": residual, "weight": weight, "y": y, "width": width, "eps": eps}
    warps = min(max(block // 512, 1), 16)
    return Launch(rms_norm_kernel, (tokens,), {**arguments, "x_stride": x.stride(0)}, {"BLOCK": block}, warps)


def residual_fits(residual: Tensor) -> bool:
    """Whether the kernel can add to it."""
    return residual.dtype == torch.float32 and residual.is_contiguous()
