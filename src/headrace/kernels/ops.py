"""What a device must be able to compute: the operations between which the decoder is written.

`Ops` is the seam: `TorchOps` is the specification, in plain torch, on any device; a faster implementation subclasses
it and overrides what it does better. Every override is tested against `TorchOps` on the same inputs.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer: `[num_blocks, num_kv_heads, block_size, head_dim]` each, contiguous."""

    k: Tensor
    v: Tensor


@dataclass(slots=True)
class StepBatch:
    """One step over one flat axis of T tokens, that belong to R rows; each row adds one or more tokens at its end.

    On the device: `positions` int64 [T]; `slots` int64 [T], block * block_size + offset, where each token's key and
    value go; `query_start` int32 [R + 1]; `context_lens` int32 [R], tokens in the cache once this step's are written;
    `block_tables` int32 [R, B], padded with 0. On the host, so that no step waits for the device: `query_lens` and
    `kv_lens`, int32 [R]. `plan` is where an implementation keeps what it derives once a step.
    """

    positions: Tensor
    slots: Tensor
    query_start: Tensor
    context_lens: Tensor
    block_tables: Tensor
    query_lens: NDArray[np.int32]
    kv_lens: NDArray[np.int32]
    plan: object | None = None


@dataclass(frozen=True, slots=True)
class HeadShape:
    """How the packed QKV of a layer is cut: `[T, (num_heads + 2 * num_kv_heads) * head_dim]`, Q first, then K, V."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


class Linear(Protocol):
    """A weight in whatever form it is kept, ready to multiply with."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, in]` to `[T, out]`, in the dtype of `x`. A row's result does not depend on the other rows' values."""
        ...


@dataclass(frozen=True, slots=True)
class Int4Groups:
    """A weight `[out, in]` as unsigned 4-bit values in groups along `in`: w = q * scale + minimum.

    `q` uint8 [out, in] (0 to 15, one a byte: the packing is the implementation's), `scale` and `minimum`
    float32 [out, in / group_size].
    """

    q: Tensor
    scale: Tensor
    minimum: Tensor

    @property
    def group_size(self) -> int:
        """Weights that share one scale."""
        return self.q.shape[1] // self.scale.shape[1]


@dataclass(slots=True)
class ResidualStream:
    """The residual stream of a step, `[T, H]`: `total` is float32 whatever the `dtype` of activations.

    Rounding it at each layer would be the largest error of all. `pending`, in `dtype`, is what was added last where the
    next norm, which reads the stream anyway, has not added it to `total` yet.
    """

    total: Tensor
    dtype: torch.dtype
    pending: Tensor | None = None


class Ops(Protocol):
    """The operations. T tokens, H hidden size, D head dimension; activations in the model's dtype."""

    def capturable(self, heads: HeadShape) -> bool:
        """Whether they neither wait for the device nor depend on its values, so that a step can be captured once."""
        ...

    def dense(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A linear layer that keeps `weight` [out, in] in its own dtype. May consume (repack) the weight."""
        ...

    def int8(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """Quantize `weight` [out, in] to int8, one scale an output channel.

        An implementation may quantize activations too, with scales that belong to one token alone, finely enough to
        move outputs by no more than 1 % of their standard deviation.
        """
        ...

    def int4(self, weight: Int4Groups, bias: Tensor | None = None) -> Linear:
        """A linear layer on 4-bit groups, weight-only."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last axis, computed in fp32; [T, H] to [T, H]."""
        ...

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`residual += x` in place, float32, then its `rms_norm` in the dtype of `x`."""
        ...

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """[T, 2 * I] (gate, then up) to silu(gate) * up, [T, I]."""
        ...

    def norm_stream(self, stream: ResidualStream, weight: Tensor, eps: float) -> Tensor:
        """The `rms_norm` of the stream, in its dtype, [T, H]; what was pending is added first."""
        ...

    def norm_linear(self, stream: ResidualStream, weight: Tensor, eps: float, linear: Linear) -> Tensor:
        """A linear layer after `norm_stream`; [T, out]."""
        ...

    def norm_gate_up(self, stream: ResidualStream, weight: Tensor, eps: float, gate_up: Linear) -> Tensor:
        """`silu_and_mul` after `norm_linear`; [T, out / 2]."""
        ...

    def linear_add(self, x: Tensor, linear: Linear, stream: ResidualStream) -> None:
        """Add a linear layer of `x` to the stream. Nothing may be pending."""
        ...

    def rope_and_cache(
        self,
        qkv: Tensor,
        heads: HeadShape,
        cos_sin: Tensor,
        batch: StepBatch,
        cache: LayerCache,
        q_norm: Tensor | None = None,
        k_norm: Tensor | None = None,
        eps: float = 0.0,
    ) -> Tensor:
        """Norm (if weights are given) and rotate Q and K, write K and V to `batch.slots`; returns Q [T, num_heads, D].

        `cos_sin` fp32 [max positions, D]: cosines of the D/2 frequencies, then their sines (half-split rotation, as
        in Hugging Face's Llama).
        """
        ...

    def attend(self, q: Tensor, cache: LayerCache, batch: StepBatch, scale: float, window: int | None) -> Tensor:
        """Causal attention of each row's new tokens over its cached context; [T, num_heads, D] to [T, num_heads * D].

        A query at position p sees keys at positions p - window + 1 (or 0) to p.
        """
        ...

    def copy_blocks(self, cache: LayerCache, source: Tensor, target: Tensor) -> None:
        """Copy whole blocks within one layer's cache; int64 [N] each."""
        ...


def kv_cache(
    num_layers: int, num_blocks: int, block_size: int, heads: HeadShape, dtype: torch.dtype, device: torch.device
) -> list[LayerCache]:
    """An empty cache, one allocation for all layers."""
    shape = (num_layers, 2, num_blocks, heads.num_kv_heads, block_size, heads.head_dim)
    store = torch.empty(shape, dtype=dtype, device=device)
    return [LayerCache(store[layer, 0], store[layer, 1]) for layer in range(num_layers)]
