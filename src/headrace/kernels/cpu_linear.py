"""Linear layers on a CPU, out of torch's own operators: weights are packed once, in the layout its kernels read."""

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.ops import Int4Groups
from headrace.kernels.quantize import INT8_MAX, quantize_rows
from headrace.kernels.torch_linear import bytes_of

_PART_ELEMENTS = 1 << 20
"""Weights that are widened at a time: no second copy of them all."""


class PackedDense:
    """A weight reordered for oneDNN: about twice as fast as `F.linear` for few tokens."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._nbytes = bytes_of(weight, bias)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias = bias

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self._nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


def packs_dense(dtype: torch.dtype) -> bool:
    """Whether this CPU and this build of torch can multiply with a reordered weight of `dtype`; tried, not guessed."""
    ones = torch.ones(16, 16, dtype=dtype)
    try:
        return bool((PackedDense(ones, None)(ones) == 16).all())
    except (AttributeError, RuntimeError):
        return False


class WidenedDense:
    """A 16-bit weight on a CPU that is slow to multiply it: parts are widened to fp32 as they are needed."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._weight, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        wide = x.float()
        parts = torch.split(self._weight, max(1, _PART_ELEMENTS // self._weight.shape[1]))
        y = torch.cat([F.linear(wide, part.float()).to(x.dtype) for part in parts], dim=1)
        return y if self._bias is None else y.add_(self._bias)


_PLANE_RATIO = 2 * INT8_MAX


class IntMmInt8:
    """int8 times int8 by `torch._int_mm`: one scale an output channel, one a token.

    A token's activations are two int8 planes: what the first rounds away is the second, 254 times finer. A few large
    values stretch a token's scale, and one plane alone would lose the others: 5 % of perplexity on a small model.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, scale = quantize_rows(weight)
        self._scale = scale.squeeze(1)
        self._bias = None if bias is None else bias.float()

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._weight, self._scale, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        # abs + amax is one pass more and still several times faster than an infinity norm.
        scale = x.abs().amax(dim=-1, keepdim=True).float().div_(INT8_MAX)
        scale.clamp_min_(torch.finfo(torch.float32).tiny)
        exact = torch.div(x, scale)
        coarse = exact.round()
        fine = exact.sub_(coarse).mul_(_PLANE_RATIO).round_()
        planes = torch._int_mm(torch.cat((coarse, fine)).to(torch.int8), self._weight.t())
        y = planes[len(x) :].mul(1 / _PLANE_RATIO).add_(planes[: len(x)]).mul_(scale).mul_(self._scale)
        return (y if self._bias is None else y.add_(self._bias)).to(x.dtype)


def int_mm_is_exact() -> bool:
    """Whether `torch._int_mm` is right at the ends of its range: without VNNI some kernels saturate at 16 bits."""
    ends = torch.full((2, 64), -int(INT8_MAX), dtype=torch.int8)
    ends[1] = int(INT8_MAX)
    exact = ends.double() @ ends.double().t()
    return bool((torch._int_mm(ends, ends.t()).double() == exact).all())


class PackedInt4:
    """4-bit groups by `_weight_int4pack_mm_for_cpu`, for bfloat16 activations: w = (q - 8) * scale + zero.

    Scale and zero are rounded to bfloat16. For hundreds of tokens it would be faster to multiply the weight out, but
    that rounds otherwise: a token's result would depend on how many others are in the step.
    """

    def __init__(self, weight: Int4Groups, bias: Tensor | None) -> None:
        self._group_size = weight.group_size
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight.q.int(), 2)
        zero = weight.minimum + 8 * weight.scale
        self._scale_zero = torch.stack((weight.scale.t(), zero.t()), dim=-1).bfloat16().contiguous()
        self._bias = bias

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._packed, self._scale_zero, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self._packed, self._group_size, self._scale_zero)
        return y if self._bias is None else y.add_(self._bias)
