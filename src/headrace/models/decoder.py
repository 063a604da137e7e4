"""The decoder of Llama, Mistral, Qwen2 and Qwen3: one forward pass, in which the families differ only by data.

It is written between the operations of `Ops` and knows neither the device nor the form in which weights are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.ops import HeadShape, LayerCache, Linear, Ops, ResidualStream, StepBatch
from headrace.planner.shape import ModelShape


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """The weights of one layer. `q_norm` and `k_norm` are Qwen3's; `window` is sliding attention's, in tokens."""

    input_norm: Tensor
    qkv: Linear
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    window: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all weights of the layer."""
        norms = (self.input_norm, self.mlp_norm, self.q_norm, self.k_norm)
        linears = (self.qkv, self.output, self.gate_up, self.down)
        return sum(norm.nbytes for norm in norms if norm is not None) + sum(linear.nbytes for linear in linears)


class Decoder:
    """A loaded model. `summary` says, in (label, text) pairs, what each part of the checkpoint became."""

    def __init__(
        self,
        shape: ModelShape,
        ops: Ops,
        embedding: Tensor,
        layers: Sequence[DecoderLayer],
        final_norm: Tensor,
        head: Linear,
        cos_sin: Tensor,
        *,
        nbytes: int,
        summary: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.shape = shape
        self.nbytes = nbytes
        self.summary = tuple(summary)
        self._ops = ops
        self._embedding = embedding
        self._layers = layers
        self._final_norm = final_norm
        self._head = head
        self._cos_sin = cos_sin
        self._heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.head_dim)
        self._scale = shape.head_dim**-0.5

    def forward(self, token_ids: Tensor, batch: StepBatch, caches: Sequence[LayerCache]) -> Tensor:
        """One step: int64 `[T]` to the final, normed hidden states `[T, H]`; keys and values go to `caches`."""
        stream = ResidualStream(F.embedding(token_ids, self._embedding).float(), self._embedding.dtype)
        for layer, cache in zip(self._layers, caches, strict=True):
            self._attention(layer, stream, batch, cache)
            self._mlp(layer, stream)
        return self._ops.norm_stream(stream, self._final_norm, self.shape.rms_norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states of R rows `[R, H]` to `[R, vocab_size]`, in the dtype of the hidden states."""
        return self._head(hidden)

    def _attention(self, layer: DecoderLayer, stream: ResidualStream, batch: StepBatch, cache: LayerCache) -> None:
        ops, eps = self._ops, self.shape.rms_norm_eps
        qkv = ops.norm_linear(stream, layer.input_norm, eps, layer.qkv)
        q = ops.rope_and_cache(qkv, self._heads, self._cos_sin, batch, cache, layer.q_norm, layer.k_norm, eps)
        ops.linear_add(ops.attend(q, cache, batch, self._scale, layer.window), layer.output, stream)

    def _mlp(self, layer: DecoderLayer, stream: ResidualStream) -> None:
        ops, eps = self._ops, self.shape.rms_norm_eps
        ops.linear_add(ops.norm_gate_up(stream, layer.mlp_norm, eps, layer.gate_up), layer.down, stream)
