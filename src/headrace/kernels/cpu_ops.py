"""The operations on a CPU, out of torch operators only: what runs where there is no compiler."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.cpu_attention import attend_in_groups
from headrace.kernels.cpu_linear import IntMmInt8, PackedDense, PackedInt4, WidenedDense, int_mm_is_exact, packs_dense
from headrace.kernels.cpu_plan import head_slots, rotation
from headrace.kernels.ops import HeadShape, Int4Groups, LayerCache, Linear, StepBatch
from headrace.kernels.scratch import Scratch
from headrace.kernels.torch_linear import TorchDense, TorchInt8
from headrace.kernels.torch_ops import TorchOps

_INT4_GROUP_SIZES = (32, 64, 128, 256)


class CpuOps(TorchOps):
    """`Ops` for activations of one dtype on a CPU; for one thread at a time."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._scratch = Scratch()
        self._dense = _dense_kind(dtype)
        self._int8 = IntMmInt8 if int_mm_is_exact() else TorchInt8
        self._attention_dtype = dtype if self._dense is PackedDense else torch.float32

    def dense(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A linear layer that keeps `weight` [out, in] in its own dtype."""
        kind = self._dense if weight.dtype == self._dtype else TorchDense
        return kind(weight, bias)

    def int8(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A linear layer of int8 products, one scale an output channel and one a token."""
        return self._int8(weight, bias)

    def int4(self, weight: Int4Groups, bias: Tensor | None = None) -> Linear:
        """A linear layer on 4-bit groups, weight-only."""
        fits = weight.group_size in _INT4_GROUP_SIZES and len(weight.q) % 16 == 0
        return PackedInt4(weight, bias) if fits and self._dtype == torch.bfloat16 else super().int4(weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last axis, in fp32, rounded to the dtype of `x`."""
        if weight.dtype != x.dtype:
            return super().rms_norm(x, weight, eps)
        return F.rms_norm(x, weight.shape, weight, eps)

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """[T, 2 * I] (gate, then up) to silu(gate) * up, [T, I]."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

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
        """Norm and rotate Q and K together, write K and V to the cache; returns Q [T, num_heads, head_dim]."""
        cos, sin = rotation(batch, cos_sin)
        packed = qkv.view(len(qkv), -1, heads.head_dim)
        rotating = packed[:, : heads.num_heads + heads.num_kv_heads]
        if q_norm is not None and k_norm is not None:
            rotating = _norm_heads(rotating, heads.num_heads, q_norm, k_norm, eps)
        turned = torch.mul(rotating, cos).addcmul_(rotating.roll(heads.head_dim // 2, -1), sin).to(qkv.dtype)
        slots = head_slots(batch, heads.num_kv_heads, cache.k.shape[2])
        cache.k.view(-1, heads.head_dim).index_put_((slots,), turned[:, heads.num_heads :])
        cache.v.view(-1, heads.head_dim).index_put_((slots,), packed[:, -heads.num_kv_heads :])
        return turned[:, : heads.num_heads]

    def attend(self, q: Tensor, cache: LayerCache, batch: StepBatch, scale: float, window: int | None) -> Tensor:
        """Causal attention of each row's new tokens over its cached context; [T, num_heads * head_dim]."""
        return attend_in_groups(q, cache, batch, scale, window, self._attention_dtype, self._scratch)


def _norm_heads(x: Tensor, num_heads: int, q_norm: Tensor, k_norm: Tensor, eps: float) -> Tensor:
    """Q and K normed over the head dimension, fp32: one pass, with a weight a head."""
    heads, head_dim = x.shape[1:]
    weights = torch.cat((q_norm.expand(num_heads, -1), k_norm.expand(heads - num_heads, -1)))
    return F.rms_norm(x.float(), (head_dim,), None, eps).mul_(weights)


def _dense_kind(dtype: torch.dtype) -> Callable[[Tensor, Tensor | None], Linear]:
    """What multiplies dense weights of a dtype fastest on this CPU."""
    if packs_dense(dtype):
        return PackedDense
    return TorchDense if dtype == torch.float32 else WidenedDense
