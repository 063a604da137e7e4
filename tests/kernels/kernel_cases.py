"""Random steps over a poisoned cache, and how close two results must be."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headrace.kernels.batch import make_step_batch
from headrace.kernels.cpu_native import NativeOps
from headrace.kernels.cpu_native.build import load_kernels
from headrace.kernels.cpu_ops import CpuOps
from headrace.kernels.ops import HeadShape, LayerCache, Ops, StepBatch

IMPLEMENTATIONS: dict[str, Callable[[torch.dtype], Ops]] = {
    "cpu": CpuOps,
    "native": lambda dtype: NativeOps(load_kernels(), dtype),
}
"""By name, how to make each implementation that must agree with `TorchOps`."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}
"""Root mean square of the difference that rounding explains, as a share of the result's."""
WORST = 10
"""How many times as much one element may differ: there are up to 300,000 in a result."""

HEAD_SHAPES = [
    HeadShape(4, 4, 32),
    HeadShape(9, 3, 64),
    HeadShape(8, 1, 128),
    HeadShape(16, 2, 80),
    HeadShape(5, 1, 96),
]

MIXES: dict[str, list[tuple[int, int]]] = {
    "one token": [(1, 1)],
    "decode": [(1, 5), (1, 33), (1, 64), (1, 17)],
    "one long row among short ones": [(1, 900)] + [(1, n) for n in range(20, 36)],
    "prefill": [(37, 37)],
    "prefills of different lengths": [(3, 3), (40, 40), (41, 41), (2, 2), (16, 16)],
    "long prefill": [(300, 300)],
    "chunk with cached prefix": [(19, 83)],
    "mixed": [(1, 40), (7, 50), (1, 1), (33, 33), (1, 129), (2, 66), (5, 6)],
}
"""Rows as (new tokens, tokens in the cache after them)."""


@dataclass
class Case:
    """A step ready to attend, and the rows that it was made of."""

    q: Tensor
    cache: LayerCache
    batch: StepBatch
    tables: list[list[int]]


def random_case(
    rows: list[tuple[int, int]], heads: HeadShape, dtype: torch.dtype, block_size: int = 16, seed: int = 0
) -> Case:
    """Every cached token random, every other place of the cache NaN; blocks are scattered and out of order."""
    random = torch.Generator().manual_seed(seed)
    needs = [-(-length // block_size) for _, length in rows]
    free = (torch.randperm(sum(needs) + 3, generator=random)).tolist()
    tables = [[free.pop() for _ in range(need)] for need in needs]
    batch = make_step_batch([new for new, _ in rows], [length for _, length in rows], tables, block_size)
    cache = poisoned_cache(sum(needs) + 3, heads, dtype, block_size)
    for (_, length), table in zip(rows, tables, strict=True):
        for tensor in (cache.k, cache.v):
            values = torch.randn(heads.num_kv_heads, length, heads.head_dim, generator=random)
            for place, part in zip(table, values.split(block_size, dim=1), strict=True):
                tensor[place, :, : part.shape[1]] = part.to(dtype)
    q = torch.randn(len(batch.positions), heads.num_heads, heads.head_dim, generator=random).to(dtype)
    return Case(q, cache, batch, tables)


def poisoned_cache(num_blocks: int, heads: HeadShape, dtype: torch.dtype, block_size: int) -> LayerCache:
    """A cache of NaN."""
    shape = (num_blocks, heads.num_kv_heads, block_size, heads.head_dim)
    return LayerCache(torch.full(shape, torch.nan, dtype=dtype), torch.full(shape, torch.nan, dtype=dtype))


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    """Equal up to what rounding to `dtype` explains, relative to the size of the values."""
    assert actual.shape == expected.shape
    wide, allowed = expected.double(), TOLERANCE[dtype] * factor
    size = wide.square().mean().sqrt().clamp_min(1e-30)
    difference = actual.double() - wide
    mean = difference.square().mean().sqrt() / size
    worst = (difference.abs() / wide.abs().clamp_min(size.item())).max()
    assert mean <= allowed, f"the mean difference is {mean:.2g} of the values, {allowed:.2g} is allowed"
    assert worst <= WORST * allowed, f"the worst difference is {worst:.2g}, {WORST * allowed:.2g} is allowed"
