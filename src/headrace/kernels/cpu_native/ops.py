"""`Ops` on a CPU by the compiled kernels; what they do not cover is left to `CpuOps`."""

import torch
from torch import Tensor

from headrace.kernels.cpu_native.library import DTYPE_CODES, KernelContext, KernelLibrary, address
from headrace.kernels.cpu_native.linear import NativeBf16, NativeInt4, NativeInt8
from headrace.kernels.cpu_ops import CpuOps
from headrace.kernels.ops import HeadShape, Int4Groups, LayerCache, Linear, StepBatch

_MOST_GROUPED_HEADS = 64
"""Query heads of one key head that the attention kernel holds at once, MOST_QUERY_ROWS in attention.c."""
_MOST_HEAD_DIM = 1024
"""HR_MOST_DIM in attention.c."""


class NativeOps(CpuOps):
    """The compiled kernels, for float32, bfloat16 and float16, on their own threads: as many as torch uses now."""

    def __init__(self, library: KernelLibrary, dtype: torch.dtype, threads: int | None = None) -> None:
        super().__init__(dtype)
        self._context = KernelContext(library, torch.get_num_threads() if threads is None else threads)
        self._c = library.c
        self._packs_bf16 = library.multiplies_bf16

    def dense(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A linear layer that keeps `weight` [out, in] in its own dtype."""
        if self._packs_bf16 and weight.dtype == self._dtype == torch.bfloat16:
            return NativeBf16(self._context, weight, bias)
        return super().dense(weight, bias)

    def int8(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A linear layer of int8 products, one scale an output channel and one for each 64 values of a token."""
        return NativeInt8(self._context, weight, bias) if NativeInt8.fits(weight) else super().int8(weight, bias)

    def int4(self, weight: Int4Groups, bias: Tensor | None = None) -> Linear:
        """A linear layer on 4-bit groups. bfloat16 activations are quantized to int8 by the same groups, as llama.cpp
        does: that costs about what rounding them to bfloat16 did; more precise ones are kept as they are."""
        fits = self._dtype == torch.bfloat16 and NativeInt4.fits(weight)
        return NativeInt4(self._context, weight, bias) if fits else super().int4(weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last axis, in fp32, rounded to the dtype of `x`."""
        return self._norm(x, None, weight, eps)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`residual += x` in place, in float32, then its `rms_norm`."""
        if residual.dtype != torch.float32 or not residual.is_contiguous():
            return super().add_rms_norm(x, residual, weight, eps)
        return self._norm(x, residual, weight, eps)

    def _norm(self, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        self._c.hr_rms_norm(
            self._context.pool, x.data_ptr(), address(residual), weight.data_ptr(), y.data_ptr(),
            *x.shape, DTYPE_CODES[x.dtype], DTYPE_CODES[weight.dtype], eps,
        )  # fmt: skip
        return y

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """[T, 2 * I] (gate, then up) to silu(gate) * up, [T, I]."""
        gate_up = gate_up.contiguous()
        tokens, width = gate_up.shape
        y = gate_up.new_empty(tokens, width // 2)
        code = DTYPE_CODES[gate_up.dtype]
        self._c.hr_silu_and_mul(self._context.pool, gate_up.data_ptr(), y.data_ptr(), tokens, width // 2, code)
        return y

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
        """Norm and rotate Q and K, write K and V to the cache, in one pass; returns Q [T, num_heads, head_dim]."""
        qkv = qkv.contiguous()
        tokens = qkv.shape[0]
        q = qkv.new_empty(tokens, heads.num_heads, heads.head_dim)
        norm_code = 0 if q_norm is None else DTYPE_CODES[q_norm.dtype]
        self._c.hr_rope_and_cache(
            self._context.pool, qkv.data_ptr(), address(q_norm), address(k_norm), q.data_ptr(),
            cache.k.data_ptr(), cache.v.data_ptr(), cos_sin.data_ptr(), batch.positions.data_ptr(),
            batch.slots.data_ptr(), tokens, heads.num_heads, heads.num_kv_heads, heads.head_dim,
            cache.k.shape[2], DTYPE_CODES[qkv.dtype], DTYPE_CODES[cache.k.dtype], norm_code, eps,
        )  # fmt: skip
        return q

    def attend(self, q: Tensor, cache: LayerCache, batch: StepBatch, scale: float, window: int | None) -> Tensor:
        """Causal attention of each row's new tokens over its cached context; [T, num_heads * head_dim]."""
        tokens, num_heads, head_dim = q.shape
        _, num_kv_heads, block_size, _ = cache.k.shape
        if num_heads > num_kv_heads * _MOST_GROUPED_HEADS or head_dim > _MOST_HEAD_DIM or head_dim % 2:
            return super().attend(q, cache, batch, scale, window)
        q = q.contiguous()
        out = q.new_empty(tokens, num_heads * head_dim)
        self._c.hr_attend(
            self._context.pool, q.data_ptr(), cache.k.data_ptr(), cache.v.data_ptr(), out.data_ptr(),
            batch.query_start.data_ptr(), batch.context_lens.data_ptr(), batch.block_tables.data_ptr(),
            len(batch.query_lens), batch.block_tables.shape[1], num_heads, num_kv_heads, head_dim, block_size,
            DTYPE_CODES[q.dtype], DTYPE_CODES[cache.k.dtype], window or 0, scale,
        )  # fmt: skip
        return out
