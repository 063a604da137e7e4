"""Linear layers in plain torch: what dense, int8 and int4 weights mean, on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.ops import Int4Groups
from headrace.kernels.quantize import quantize_rows


def bytes_of(*tensors: Tensor | None) -> int:
    """Bytes that these tensors hold; `None` holds none."""
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class TorchDense:
    """A weight in its own dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._weight, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        return F.linear(x, self._weight, self._bias)


class TorchInt8:
    """An int8 weight with one scale an output channel; activations as they are, products in fp32."""

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
        y = F.linear(x.float(), self._weight.float()) * self._scale
        return (y if self._bias is None else y + self._bias).to(x.dtype)


class TorchInt4:
    """4-bit groups, multiplied out to the dtype of the activations at each call.

    A byte holds a weight of the first half of the inputs in its low four bits and one of the second half in its high.
    """

    def __init__(self, weight: Int4Groups, bias: Tensor | None) -> None:
        first, second = weight.q.chunk(2, dim=1)
        self._packed = first | (second << 4)
        self._scale, self._minimum, self._bias = weight.scale, weight.minimum, bias

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return bytes_of(self._packed, self._scale, self._minimum, self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`."""
        q = torch.cat((self._packed & 15, self._packed >> 4), dim=1)
        weight = dequantize_groups(Int4Groups(q, self._scale, self._minimum))
        return F.linear(x, weight.to(x.dtype), self._bias)


def dequantize_groups(weight: Int4Groups) -> Tensor:
    """The values of 4-bit groups, float32 [out, in]."""
    q = weight.q.view(len(weight.q), -1, weight.group_size)
    return (q * weight.scale.unsqueeze(-1) + weight.minimum.unsqueeze(-1)).flatten(1)
