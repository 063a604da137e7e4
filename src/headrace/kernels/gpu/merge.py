"""The chunks of one row and key head put together: each result weighted by the sum of its softmax weights."""

import triton
import triton.language as tl


@triton.jit
def merge_chunks(
    partial: tl.tensor,
    weight: tl.tensor,
    result: tl.tensor,
    first: tl.tensor,
    splits: tl.tensor,
    STRIDE: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    QUERIES: tl.constexpr,
    DIM: tl.constexpr,
    MERGED: tl.constexpr,
) -> None:
    """`MERGED` chunks at a time, in order, for all `GROUP` query heads; chunk c is at `first` + c * STRIDE.

    What other programs wrote is read past the multiprocessor's own cache.
    """
    query = tl.arange(0, QUERIES)
    column = tl.arange(0, DIM)
    in_query = (query < GROUP)[:, None] & (column < HEAD_DIM)[None, :]
    logs = _weights(weight, first, tl.arange(0, MAX_SPLITS), splits, query, STRIDE, GROUP)
    largest = tl.max(logs, axis=0)
    total = tl.sum(tl.exp2(logs - largest[None, :]), axis=0)
    merged = tl.zeros([QUERIES, DIM], tl.float32)
    within = query[:, None] * HEAD_DIM + column[None, :]
    for start in range(0, splits, MERGED):
        chunk = start + tl.arange(0, MERGED)
        share = tl.exp2(_weights(weight, first, chunk, splits, query, STRIDE, GROUP) - largest[None, :])
        places = partial + (first + chunk * STRIDE)[:, None, None] * HEAD_DIM + within[None, :, :]
        mask = (chunk < splits)[:, None, None] & in_query[None, :, :]
        parts = tl.load(places, mask, other=0.0, cache_modifier=".cg")
        merged += tl.sum(parts * share[:, :, None], axis=0)
    tl.store(result + within, (merged / total[:, None]).to(result.dtype.element_ty), in_query)


@triton.jit
def _weights(
    weight: tl.tensor,
    first: tl.tensor,
    chunk: tl.tensor,
    splits: tl.tensor,
    query: tl.tensor,
    STRIDE: tl.constexpr,
    GROUP: tl.constexpr,
) -> tl.tensor:
    """The logarithms of the weights of chunks [C], for each query head [C, QUERIES]; of no weight: none there."""
    exists = (chunk < splits)[:, None] & (query < GROUP)[None, :]
    places = weight + (first + chunk * STRIDE)[:, None] + query[None, :]
    logs = tl.load(places, exists, other=float("-inf"), cache_modifier=".cg")
    return tl.where((query < GROUP)[None, :], logs, 0.0)
