"""Linear layers on the compiled kernels: each keeps its weight packed, and is one call.

A call takes microseconds, and a step makes hundreds: `shape[0]` and `new_empty` are several times cheaper here than
`len` and `torch.empty`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.cpu_native.library import DTYPE_CODES, KernelContext, address
from headrace.kernels.ops import Int4Groups
from headrace.kernels.quantize import quantize_rows
from headrace.kernels.torch_linear import bytes_of

_TILE = 32
"""Outputs are packed in tiles of this many, HR_TILE in linear.h."""
_ROWS_AT_ONCE = 4096
"""A weight is quantized this many rows at a time, so that its fp32 form never exists as a whole."""
_GROUP_MULTIPLE = 16
_MAX_INPUTS = 1 << 16
"""A token is widened on the stack before it is quantized."""


class NativeInt8:
    """int8 times int8: one scale an output channel, one for each 64 values of a token, all in one call."""

    def __init__(self, context: KernelContext, weight: Tensor, bias: Tensor | None) -> None:
        self._context, self._multiply = context, context.c.hr_int8_linear
        self._n, self._k = weight.shape
        self._packed = context.arena.take(context.c.hr_int8_packed_bytes(self._n, self._k))
        self._scale = torch.zeros(_padded(self._n))
        self._bias = _pad(bias)
        for start in range(0, self._n, _ROWS_AT_ONCE):
            self._pack(start, weight[start : start + _ROWS_AT_ONCE])

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the kernel takes this many inputs."""
        return weight.shape[1] <= _MAX_INPUTS

    def _pack(self, start: int, rows: Tensor) -> None:
        quantized, scale = quantize_rows(rows)
        self._scale[start : start + len(rows)] = scale.squeeze(1)
        offset = self._context.c.hr_int8_packed_bytes(start, self._k)
        self._context.c.hr_int8_pack(quantized.data_ptr(), len(rows), self._k, self._packed.data_ptr() + offset)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._packed, self._scale, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        x = x.contiguous()
        tokens = x.shape[0]
        y = x.new_empty(tokens, self._n)
        self._multiply(
            self._context.pool, self._packed.data_ptr(), self._scale.data_ptr(), address(self._bias),
            x.data_ptr(), y.data_ptr(), tokens, self._n, self._k, DTYPE_CODES[x.dtype],
        )  # fmt: skip
        return y


class NativeInt4:
    """4-bit groups times activations that are quantized to int8 a group at a time."""

    def __init__(self, context: KernelContext, weight: Int4Groups, bias: Tensor | None) -> None:
        self._context, self._multiply = context, context.c.hr_int4_linear
        self._n, self._k = weight.q.shape
        self._group_size = weight.group_size
        scale, minimum = _narrowest(weight.scale, weight.minimum)
        self._scale_code = DTYPE_CODES[scale.dtype]
        shape = (self._n, self._k, self._group_size, self._scale_code)
        self._packed = context.arena.take(context.c.hr_int4_packed_bytes(*shape))
        q = weight.q.contiguous()
        context.c.hr_int4_pack(q.data_ptr(), scale.data_ptr(), minimum.data_ptr(), *shape, self._packed.data_ptr())
        self._bias = _pad(bias)

    @staticmethod
    def fits(weight: Int4Groups) -> bool:
        """Whether the kernel takes groups of this size, and this many inputs."""
        return weight.group_size % _GROUP_MULTIPLE == 0 and weight.q.shape[1] <= _MAX_INPUTS

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._packed, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        x = x.contiguous()
        tokens = x.shape[0]
        y = x.new_empty(tokens, self._n)
        self._multiply(
            self._context.pool, self._packed.data_ptr(), self._group_size, self._scale_code, address(self._bias),
            x.data_ptr(), y.data_ptr(), tokens, self._n, self._k, DTYPE_CODES[x.dtype],
        )  # fmt: skip
        return y


class NativeBf16:
    """A bf16 weight times bf16 activations, summed in fp32."""

    def __init__(self, context: KernelContext, weight: Tensor, bias: Tensor | None) -> None:
        self._context, self._multiply = context, context.c.hr_bf16_linear
        self._n, self._k = weight.shape
        self._packed = context.arena.take(context.c.hr_bf16_packed_bytes(self._n, self._k))
        weight = weight.contiguous()
        context.c.hr_bf16_pack(weight.data_ptr(), self._n, self._k, self._packed.data_ptr())
        self._bias = _pad(bias)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._packed, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        x = x.contiguous()
        tokens = x.shape[0]
        y = x.new_empty(tokens, self._n)
        self._multiply(
            self._context.pool, self._packed.data_ptr(), address(self._bias),
            x.data_ptr(), y.data_ptr(), tokens, self._n, self._k,
        )  # fmt: skip
        return y


def _padded(n: int) -> int:
    return -(-n // _TILE) * _TILE


def _pad(bias: Tensor | None) -> Tensor | None:
    """fp32 and as long as the tiles, which the kernels read whole."""
    return None if bias is None else F.pad(bias.float(), (0, _padded(len(bias)) - len(bias)))


def _narrowest(scale: Tensor, minimum: Tensor) -> tuple[Tensor, Tensor]:
    """fp16, as GGUF's plain 4-bit formats have them, if no value changes by it; else fp32."""
    halves = scale.half(), minimum.half()
    exact = torch.equal(halves[0].float(), scale) and torch.equal(halves[1].float(), minimum)
    chosen = halves if exact else (scale.float(), minimum.float())
    return chosen[0].contiguous(), chosen[1].contiguous()
