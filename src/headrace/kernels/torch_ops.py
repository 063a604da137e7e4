"""The operations in plain torch, for any device: the specification that every faster implementation is tested against.

Norms, rotation, activation and softmax are computed in fp32 and rounded once, at the end.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.cache_dtype import as_cached, indexable
from headrace.kernels.ops import HeadShape, Int4Groups, LayerCache, Linear, ResidualStream, StepBatch
from headrace.kernels.torch_linear import TorchDense, TorchInt4, TorchInt8


class TorchOps:
    """`Ops` by its definition: clear first, fast second."""

    def capturable(self, heads: HeadShape) -> bool:
        """Never: attention asks the device for lengths."""
        return False

    def dense(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A linear layer that keeps `weight` [out, in] in its own dtype."""
        return TorchDense(weight, bias)

    def int8(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """A linear layer of int8 products, one scale an output channel and one a token."""
        return TorchInt8(weight, bias)

    def int4(self, weight: Int4Groups, bias: Tensor | None = None) -> Linear:
        """A linear layer on 4-bit groups, weight-only."""
        return TorchInt4(weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last axis, in fp32, rounded to the dtype of `x`."""
        return _normalize(x.float(), weight, eps).to(x.dtype)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`residual += x` in place, in float32, then its `rms_norm`."""
        return _normalize(residual.add_(x), weight, eps).to(x.dtype)

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """[T, 2 * I] (gate, then up) to silu(gate) * up, [T, I]."""
        gate, up = gate_up.float().chunk(2, dim=-1)
        return (F.silu(gate) * up).to(gate_up.dtype)

    def norm_stream(self, stream: ResidualStream, weight: Tensor, eps: float) -> Tensor:
        """The `rms_norm` of the stream, in its dtype; what was pending is added first."""
        if stream.pending is None:
            return self.rms_norm(stream.total, weight, eps).to(stream.dtype)
        pending, stream.pending = stream.pending, None
        return self.add_rms_norm(pending, stream.total, weight, eps)

    def norm_linear(self, stream: ResidualStream, weight: Tensor, eps: float, linear: Linear) -> Tensor:
        """A linear layer after `norm_stream`."""
        return linear(self.norm_stream(stream, weight, eps))

    def norm_gate_up(self, stream: ResidualStream, weight: Tensor, eps: float, gate_up: Linear) -> Tensor:
        """`silu_and_mul` after `norm_linear`."""
        return self.silu_and_mul(self.norm_linear(stream, weight, eps, gate_up))

    def linear_add(self, x: Tensor, linear: Linear, stream: ResidualStream) -> None:
        """Add a linear layer of `x` to the stream: the next norm does."""
        assert stream.pending is None
        stream.pending = linear(x)

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
        """Norm and rotate Q and K, write K and V to the cache; returns Q [T, num_heads, head_dim]."""
        packed = qkv.view(len(qkv), -1, heads.head_dim)
        q, k, v = torch.split(packed, [heads.num_heads, heads.num_kv_heads, heads.num_kv_heads], dim=1)
        angles = cos_sin[batch.positions]
        write_cache(cache, batch.slots, _rotate(_head_norm(k, k_norm, eps), angles), v)
        return _rotate(_head_norm(q, q_norm, eps), angles).to(qkv.dtype)

    def attend(self, q: Tensor, cache: LayerCache, batch: StepBatch, scale: float, window: int | None) -> Tensor:
        """Causal attention of each row's new tokens over its cached context; [T, num_heads * head_dim]."""
        row, column = _token_places(batch)
        query = q.new_zeros((len(batch.query_lens), int(batch.query_lens.max()), *q.shape[1:]))
        query[row, column] = q
        keys, values = _gather(cache.k, batch), _gather(cache.v, batch)
        seen = _visible(batch, query.shape[1], keys.shape[2], window)
        return _softmax_attention(query, keys, values, seen, scale)[row, column].flatten(1).to(q.dtype)

    def copy_blocks(self, cache: LayerCache, source: Tensor, target: Tensor) -> None:
        """Copy whole blocks within one layer's cache; int64 [N] each."""
        for blocks in map(indexable, (cache.k, cache.v)):
            blocks[target] = blocks[source]


def write_cache(cache: LayerCache, slots: Tensor, k: Tensor, v: Tensor) -> None:
    """Store keys and values [T, num_kv_heads, head_dim] at their slots, in the dtype of the cache."""
    block_size = cache.k.shape[2]
    block, offset = slots // block_size, slots % block_size
    for target, values in ((cache.k, k), (cache.v, v)):
        indexable(target)[block, :, offset] = indexable(as_cached(values, target.dtype))


def _normalize(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight.float()


def _head_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return x.float() if weight is None else _normalize(x.float(), weight, eps)


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + D/2]) of `[T, heads, D]` by `[T, D]`: cosines, then sines."""
    cos, sin = angles.unsqueeze(1).chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _token_places(batch: StepBatch) -> tuple[Tensor, Tensor]:
    """The row of each token and its place among its row's new tokens; int64 [T] each."""
    lens = batch.query_start.diff().long()
    row = torch.repeat_interleave(lens)
    return row, torch.arange(len(row), device=row.device) - batch.query_start.long()[row]


def _gather(blocks: Tensor, batch: StepBatch) -> Tensor:
    """Each row's cached tokens in order, up to the longest row: float32 [R, num_kv_heads, K, head_dim].

    What lies beyond a row's context was never written, and is made 0: 0 * NaN is NaN.
    """
    longest = int(batch.kv_lens.max())
    tables = batch.block_tables[:, : -(-longest // blocks.shape[2])]
    paged = indexable(blocks)[tables.long()].view(blocks.dtype)
    gathered = paged.transpose(1, 2).flatten(2, 3)[:, :, :longest].float()
    written = torch.arange(longest, device=blocks.device) < batch.context_lens.unsqueeze(1)
    return gathered.masked_fill(~written[:, None, :, None], 0.0)


def _visible(batch: StepBatch, queries: int, keys: int, window: int | None) -> Tensor:
    """Which key each query sees; bool [R, queries, keys]. A padding query sees what the row's last token sees."""
    lens = batch.query_start.diff().unsqueeze(1)
    first = batch.context_lens.unsqueeze(1) - lens
    position = first + torch.arange(queries, device=lens.device).minimum(lens - 1)
    key = torch.arange(keys, device=lens.device)
    distance = position.unsqueeze(2) - key
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _softmax_attention(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor, scale: float) -> Tensor:
    """[R, Q, heads, D] over [R, kv_heads, K, D] in fp32, query heads grouped by key head; [R, Q, heads, D]."""
    rows, queries, _, head_dim = query.shape
    grouped = query.float().view(rows, queries, keys.shape[1], -1, head_dim)
    scores = torch.einsum("rqhgd,rhkd->rhgqk", grouped, keys) * scale
    weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(dim=-1)
    return torch.einsum("rhgqk,rhkd->rqhgd", weights, values).flatten(2, 3)
