"""Attention on a CPU: gather a group's blocks, two batched matrix products with the query heads of a key head packed.

In bfloat16 the product is rounded before the softmax, so scores are taken relative to the score of the query's own key:
an offset common to all keys (large key biases) costs no precision, and softmax does not see the shift. Nothing here
depends on how a row was padded or cut, so that its result does not depend on its batch mates.
"""

import torch
from torch import Tensor

from headrace.kernels.cpu_plan import AttentionKey, RowGroup, Tile, row_groups
from headrace.kernels.ops import LayerCache, StepBatch
from headrace.kernels.scratch import Scratch


def attend_in_groups(
    q: Tensor,
    cache: LayerCache,
    batch: StepBatch,
    scale: float,
    window: int | None,
    dtype: torch.dtype,
    scratch: Scratch,
) -> Tensor:
    """`Ops.attend`, multiplying in `dtype`; `scratch` holds what is gathered."""
    num_kv_heads, block_size, head_dim = cache.k.shape[1:]
    token_bytes = 2 * num_kv_heads * head_dim * dtype.itemsize
    key = AttentionKey(q.shape[1], num_kv_heads, block_size, token_bytes, window, dtype)
    out = q.new_empty(len(q), q.shape[1] * head_dim)
    for group in row_groups(batch, key):
        keys, values = _gather(cache, group, dtype, scratch)
        for tile in group.tiles:
            query = _pack(q, tile, group.size, num_kv_heads).to(dtype)
            weights = _masked_scores(query, keys, tile, group.size, scale).softmax(dim=-1)
            heads = torch.bmm(weights, values[:, : tile.keys])
            out.index_copy_(0, tile.tokens, _unpack(heads, tile, group.size).to(q.dtype))
    return out


def _gather(cache: LayerCache, group: RowGroup, dtype: torch.dtype, scratch: Scratch) -> tuple[Tensor, Tensor]:
    """Keys and values of a group, [G * num_kv_heads, L, head_dim] each; what was never written is masked or 0."""
    block_size, head_dim = cache.k.shape[2:]
    gathered = scratch.take((2, len(group.blocks), block_size * head_dim), cache.k.dtype)
    for target, blocks in zip(gathered, (cache.k, cache.v), strict=True):
        torch.index_select(blocks.view(-1, block_size * head_dim), 0, group.blocks, out=target)
    gathered.view(-1, head_dim).index_fill_(0, group.unwritten, 0)
    keys, values = gathered.to(dtype).view(2, -1, group.keys, head_dim).unbind()
    return keys, values


def _pack(q: Tensor, tile: Tile, rows: int, num_kv_heads: int) -> Tensor:
    """The queries of a tile, those of one key head together: [G * num_kv_heads, Q * group, head_dim]."""
    chosen = q.index_select(0, tile.tokens).view(rows, tile.queries, num_kv_heads, -1, q.shape[2])
    return chosen.transpose(1, 2).reshape(rows * num_kv_heads, -1, q.shape[2])


def _masked_scores(query: Tensor, keys: Tensor, tile: Tile, rows: int, scale: float) -> Tensor:
    """Scores of a tile, [G * num_kv_heads, Q * group, keys], up to a shift that is common to a query's scores."""
    seen = keys[:, : tile.keys].mT
    if query.dtype == torch.float32:
        scores = torch.bmm(query * scale, seen)
    else:
        # The shift is added before the product is rounded.
        shift = _own_scores(query, keys, tile).mul_(-scale)
        scores = torch.baddbmm(shift.expand(-1, -1, tile.keys), query, seen, alpha=scale)
    by_row = scores.view(rows, -1, tile.queries, query.shape[1] // tile.queries, tile.keys)
    for mask in tile.masks:
        by_row[..., mask.start : mask.stop].add_(mask.values)
    return scores


def _own_scores(query: Tensor, keys: Tensor, tile: Tile) -> Tensor:
    """Each query times the key at its own position, [G * num_kv_heads, Q * group, 1]."""
    head_dim = keys.shape[-1]
    own = keys.view(-1, head_dim).index_select(0, tile.own_keys).view(len(keys), tile.queries, 1, head_dim)
    return (query.view(len(keys), tile.queries, -1, head_dim) * own).sum(dim=-1).view(len(keys), -1, 1)


def _unpack(heads: Tensor, tile: Tile, rows: int) -> Tensor:
    """[G * num_kv_heads, Q * group, head_dim] back to [G * Q, num_heads * head_dim]."""
    num_kv_heads, head_dim = heads.shape[0] // rows, heads.shape[-1]
    by_query = heads.view(rows, num_kv_heads, tile.queries, -1, head_dim).transpose(1, 2)
    return by_query.reshape(rows * tile.queries, -1)
