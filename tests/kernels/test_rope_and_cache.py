"""Rotation and the writing of the cache: against transformers' own rotation, and between implementations."""

import pytest
import torch
from kernel_cases import HEAD_SHAPES, assert_near, poisoned_cache
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import HeadShape, LayerCache, Ops, StepBatch
from headrace.kernels.torch_ops import TorchOps

BLOCK_SIZE = 8
TABLES = [[4], [2, 6, 1], [3, 5]]


def a_batch() -> StepBatch:
    return make_step_batch([1, 7, 3], [8, 23, 9], TABLES, BLOCK_SIZE)


def angles(head_dim: int) -> Tensor:
    frequency = 10_000.0 ** -(torch.arange(0, head_dim, 2) / head_dim)
    angle = torch.arange(64).unsqueeze(1) * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=1)


def run(
    ops: Ops, heads: HeadShape, dtype: torch.dtype, norms: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
) -> tuple[Tensor, LayerCache, Tensor]:
    torch.manual_seed(1)
    qkv = torch.randn(11, (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim).to(dtype)
    cache = poisoned_cache(8, heads, dtype, BLOCK_SIZE)
    q = ops.rope_and_cache(qkv.clone(), heads, angles(heads.head_dim), a_batch(), cache, *norms, eps=1e-6)
    return q, cache, qkv


def places() -> tuple[Tensor, Tensor]:
    """Block and offset of each of the batch's tokens."""
    spots = (
        [(4, 7)] + [(TABLES[1][p // 8], p % 8) for p in range(16, 23)] + [(TABLES[2][p // 8], p % 8) for p in (6, 7, 8)]
    )
    block, offset = zip(*spots, strict=True)
    return torch.tensor(block), torch.tensor(offset)


def test_specification_is_the_rotation_of_transformers() -> None:
    heads = HeadShape(6, 2, 32)
    q, cache, qkv = run(TorchOps(), heads, torch.float32)
    packed = qkv.view(11, 10, 32).transpose(0, 1).unsqueeze(0)
    cos, sin = angles(32)[torch.tensor([7, *range(16, 23), 6, 7, 8])].chunk(2, dim=1)
    full = (torch.cat((cos, cos), 1).unsqueeze(0), torch.cat((sin, sin), 1).unsqueeze(0))
    expected_q, expected_k = apply_rotary_pos_emb(packed[:, :6], packed[:, 6:8], *full)
    block, offset = places()
    assert_near(q, expected_q[0].transpose(0, 1), torch.float32)
    assert_near(cache.k[block, :, offset], expected_k[0].transpose(0, 1), torch.float32)
    assert torch.equal(cache.v[block, :, offset], qkv.view(11, 10, 32)[:, 8:])


@pytest.mark.parametrize("with_norms", [False, True])
@pytest.mark.parametrize("heads", HEAD_SHAPES, ids=str)
def test_agrees_with_the_specification(ops: Ops, dtype: torch.dtype, heads: HeadShape, with_norms: bool) -> None:
    weights = torch.randn(2, heads.head_dim).to(dtype)
    norms = (weights[0], weights[1]) if with_norms else (None, None)
    q, cache, _ = run(ops, heads, dtype, norms)
    expected_q, expected, _ = run(TorchOps(), heads, dtype, norms)
    block, offset = places()
    assert q.dtype == dtype
    assert_near(q, expected_q, dtype)
    assert_near(cache.k[block, :, offset], expected.k[block, :, offset], dtype)
    assert torch.equal(cache.v[block, :, offset], expected.v[block, :, offset])


def test_writes_nothing_but_its_slots(ops: Ops, dtype: torch.dtype) -> None:
    _, cache, _ = run(ops, HeadShape(6, 2, 32), dtype)
    block, offset = places()
    for tensor in (cache.k, cache.v):
        tensor[block, :, offset] = torch.nan
        assert tensor.isnan().all()


def test_one_batch_serves_two_rotations(ops: Ops, dtype: torch.dtype) -> None:
    heads, batch = HeadShape(4, 2, 32), a_batch()
    qkv = torch.randn(11, 8 * 32).to(dtype)
    for table in (angles(32), angles(32).flip(0), angles(32)):
        cache = poisoned_cache(8, heads, dtype, BLOCK_SIZE)
        expected = TorchOps().rope_and_cache(qkv, heads, table, batch, poisoned_cache(8, heads, dtype, BLOCK_SIZE))
        assert_near(ops.rope_and_cache(qkv, heads, table, batch, cache), expected, dtype)


def test_copy_blocks(ops: Ops, dtype: torch.dtype) -> None:
    cache = LayerCache(torch.randn(6, 2, 8, 16).to(dtype), torch.randn(6, 2, 8, 16).to(dtype))
    k, v = cache.k.clone(), cache.v.clone()
    ops.copy_blocks(cache, torch.tensor([1, 4]), torch.tensor([5, 0]))
    assert torch.equal(cache.k, k[[4, 1, 2, 3, 4, 1]])
    assert torch.equal(cache.v, v[[4, 1, 2, 3, 4, 1]])
