"""Norms, activation, rotation and block copies against their twins in torch."""

import pytest
import torch
from checks import (
    assert_same_cache,
    check_add_rms_norm,
    check_copy_blocks,
    check_rms_norm,
    check_rope_and_cache,
    check_silu_and_mul,
)
from gpu_cases import DEVICE, EVERY_DTYPE, batch_on_device, device_cache

from headrace.kernels.batch import make_step_batch
from headrace.kernels.gpu.ops import TritonOps
from headrace.kernels.ops import HeadShape
from headrace.kernels.torch_ops import TorchOps

HEADS = [
    HeadShape(4, 4, 32),
    HeadShape(9, 3, 64),
    HeadShape(16, 8, 128),
    HeadShape(16, 2, 80),
    HeadShape(5, 1, 96),
    HeadShape(4, 1, 256),
]


@pytest.mark.parametrize("size", [(1, 576), (3, 33), (2, 4096)])
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_rms_norm(triton_ops: TritonOps, dtype: torch.dtype, size: tuple[int, int]) -> None:
    check_rms_norm(triton_ops, dtype, *size)
    check_add_rms_norm(triton_ops, dtype, *size)


@pytest.mark.parametrize("size", [(1, 1536), (5, 17), (3, 1030)])
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_silu_and_mul(triton_ops: TritonOps, dtype: torch.dtype, size: tuple[int, int]) -> None:
    check_silu_and_mul(triton_ops, dtype, *size)


@pytest.mark.parametrize("with_norms", [False, True])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_rope_and_cache(triton_ops: TritonOps, dtype: torch.dtype, heads: HeadShape, with_norms: bool) -> None:
    check_rope_and_cache(triton_ops, dtype, heads, with_norms=with_norms)


def test_a_negative_slot_writes_nothing(triton_ops: TritonOps) -> None:
    heads, dtype = HeadShape(4, 2, 64), torch.float16
    qkv, cos_sin = torch.randn(3, 8 * 64, device=DEVICE).to(dtype), torch.randn(9, 64, device=DEVICE)
    batch = batch_on_device(make_step_batch([1, 1, 1], [4, 2, 9], [[1], [0], [2]], 16))
    caches = [device_cache(3, heads, dtype, 16) for _ in range(2)]
    TorchOps().rope_and_cache(qkv, heads, cos_sin, batch, caches[1])
    caches[1].k[0] = caches[1].v[0] = torch.nan
    batch.slots[1] = -1
    triton_ops.rope_and_cache(qkv, heads, cos_sin, batch, caches[0])
    assert_same_cache(caches[0], caches[1], dtype)


@pytest.mark.parametrize("block_size", [16, 32])
def test_copy_blocks(triton_ops: TritonOps, block_size: int) -> None:
    check_copy_blocks(triton_ops, torch.float16, HeadShape(9, 3, 80), block_size)
