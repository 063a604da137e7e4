"""`Ops` on a CUDA GPU by the Triton kernels; linear layers of many tokens are torch's (cuBLAS)."""

import torch
from torch import Tensor

from headrace.kernels.gpu.copy_blocks import copy_blocks_launch
from headrace.kernels.gpu.decode_attention import decode_attention_launch
from headrace.kernels.gpu.decode_plan import DecodeWork, chunk_rule, decode_plan_launch, empty_decode_work
from headrace.kernels.gpu.dense import GpuDense
from headrace.kernels.gpu.device import GpuTraits
from headrace.kernels.gpu.prefill_attention import prefill_attention_launch
from headrace.kernels.gpu.rms_norm import residual_fits, rms_norm_launch
from headrace.kernels.gpu.rope_and_cache import rope_and_cache_launch
from headrace.kernels.gpu.silu_and_mul import silu_and_mul_launch
from headrace.kernels.gpu.step_plan import AttentionPlan, attention_plan
from headrace.kernels.ops import HeadShape, LayerCache, Linear, ResidualStream, StepBatch
from headrace.kernels.torch_ops import TorchOps

_MOST_HEAD_DIM = 256
_MOST_GROUPED_HEADS = 32


class TritonOps(TorchOps):
    """The kernels for one kind of card. What they do not cover is left to `TorchOps`.

    A token's result depends on its own row alone, but for rounding: that differs with the number of rows and tokens of
    the step (`linear_tiles`), with the lengths of the other rows (`decode_plan`), and between a step that adds one
    token to its row and one that adds several.
    """

    def __init__(self, traits: GpuTraits) -> None:
        self._traits = traits

    def capturable(self, heads: HeadShape) -> bool:
        """Wherever attention is not left to `TorchOps`."""
        return heads.head_dim <= _MOST_HEAD_DIM and heads.num_heads <= heads.num_kv_heads * _MOST_GROUPED_HEADS

    def dense(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A linear layer that keeps `weight` [out, in] in its own dtype."""
        return GpuDense(weight, bias, self._traits)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last axis, in fp32, rounded to the dtype of `x`."""
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        rms_norm_launch(x, None, weight, y, eps).run_early(self._traits)
        return y

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`residual += x` in place, in float32, then its `rms_norm`."""
        if not residual_fits(residual):
            return super().add_rms_norm(x, residual, weight, eps)
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        rms_norm_launch(x, residual, weight, y, eps).run_early(self._traits)
        return y

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """[T, 2 * I] (gate, then up) to silu(gate) * up, [T, I]."""
        y = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
        silu_and_mul_launch(gate_up, y).run_early(self._traits)
        return y

    def norm_stream(self, stream: ResidualStream, weight: Tensor, eps: float) -> Tensor:
        """The `rms_norm` of the stream, in its dtype; what was pending is added first."""
        if stream.pending is not None:
            return super().norm_stream(stream, weight, eps)
        y = torch.empty(stream.total.shape, dtype=stream.dtype, device=stream.total.device)
        rms_norm_launch(stream.total, None, weight, y, eps).run_early(self._traits)
        return y

    def norm_linear(self, stream: ResidualStream, weight: Tensor, eps: float, linear: Linear) -> Tensor:
        """A linear layer after `norm_stream`; one kernel for very few tokens."""
        y = None
        if isinstance(linear, GpuDense) and stream.pending is None:
            y = linear.few(stream.total, stream.dtype, norm=weight, eps=eps)
        return super().norm_linear(stream, weight, eps, linear) if y is None else y

    def norm_gate_up(self, stream: ResidualStream, weight: Tensor, eps: float, gate_up: Linear) -> Tensor:
        """`silu_and_mul` after `norm_linear`; one kernel for very few tokens, two for few."""
        if not isinstance(gate_up, GpuDense):
            return super().norm_gate_up(stream, weight, eps, gate_up)
        y = None
        if stream.pending is None:
            y = gate_up.few(stream.total, stream.dtype, norm=weight, eps=eps, gated=True)
        if y is None:
            x = self.norm_stream(stream, weight, eps)
            y = gate_up.few(x, x.dtype, gated=True)
        return self.silu_and_mul(gate_up(x)) if y is None else y

    def linear_add(self, x: Tensor, linear: Linear, stream: ResidualStream) -> None:
        """Add a linear layer of `x` to the stream; in one kernel for few tokens."""
        if stream.pending is not None or not isinstance(linear, GpuDense) or not linear.add_few(x, stream.total):
            super().linear_add(x, linear, stream)

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
        q = qkv.new_empty(len(qkv), heads.num_heads, heads.head_dim)
        norms = (None, None) if q_norm is None or k_norm is None else (q_norm, k_norm)
        rope_and_cache_launch(qkv, q, heads, cos_sin, batch, cache, norms, eps).run_early(self._traits)
        return q

    def attend(self, q: Tensor, cache: LayerCache, batch: StepBatch, scale: float, window: int | None) -> Tensor:
        """Causal attention of each row's new tokens over its cached context; [T, num_heads * head_dim]."""
        tokens, num_heads, head_dim = q.shape
        if not self.capturable(HeadShape(num_heads, cache.k.shape[1], head_dim)):
            return super().attend(q, cache, batch, scale, window)
        plan = attention_plan(batch)
        out = q.new_empty(tokens, num_heads * head_dim)
        if plan.has_decode:
            work = self._decode_work(plan, q, cache, batch, window)
            decode_attention_launch(q, out, cache, batch, work, scale, self._traits).run_early(self._traits)
        if plan.has_prefill:
            prefill_attention_launch(q, out, cache, batch, scale, window, self._traits).run()
        return out

    def copy_blocks(self, cache: LayerCache, source: Tensor, target: Tensor) -> None:
        """Copy whole blocks within one layer's cache; int64 [N] each, no block in both."""
        copy_blocks_launch(cache, source, target).run()

    def _decode_work(
        self, plan: AttentionPlan, q: Tensor, cache: LayerCache, batch: StepBatch, window: int | None
    ) -> DecodeWork:
        """The decoding rows' chunks for a window, listed by the first layer that has it."""
        work = plan.decode.get(window)
        if work is None:
            rows, kv_heads = len(batch.context_lens), cache.k.shape[1]
            rule = chunk_rule(rows, kv_heads, window, self._traits, cache.k.element_size())
            heads = (kv_heads, q.shape[1] // kv_heads, q.shape[2])
            work = empty_decode_work(rule, rows, rule.most_items(batch), heads, q.device)
            decode_plan_launch(rule, batch, work.items, work.num_items).run()
            plan.decode[window] = work
        return work
