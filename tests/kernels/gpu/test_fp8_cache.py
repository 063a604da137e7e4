"""A cache in fp8: what the kernels write and read against their twins in torch."""

import pytest
import torch
from checks import check_attend_fp8, check_copy_blocks, check_rope_and_fp8_cache
from gpu_cases import EVERY_DTYPE
from kernel_cases import MIXES

from headrace.kernels.cache_dtype import FP8
from headrace.kernels.gpu.ops import TritonOps
from headrace.kernels.ops import HeadShape

ONE_SIZE = HeadShape(4, 2, 64)


@pytest.mark.parametrize("heads", [ONE_SIZE, HeadShape(9, 3, 80)], ids=str)
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_keys_and_values_are_rounded_once(triton_ops: TritonOps, dtype: torch.dtype, heads: HeadShape) -> None:
    check_rope_and_fp8_cache(triton_ops, dtype, heads, size=1.0)


def test_what_is_out_of_range_becomes_the_largest_number(triton_ops: TritonOps) -> None:
    check_rope_and_fp8_cache(triton_ops, torch.bfloat16, ONE_SIZE, size=300.0)


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("mix", ["decode", "long prefill", "mixed", "one long row among short ones"])
def test_attention_reads_it(triton_ops: TritonOps, mix: str, window: int | None) -> None:
    check_attend_fp8(triton_ops, torch.float16, MIXES[mix], ONE_SIZE, window)


@pytest.mark.parametrize("heads", [HeadShape(5, 1, 80), HeadShape(4, 2, 128)], ids=str)
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_head_shapes(triton_ops: TritonOps, dtype: torch.dtype, heads: HeadShape) -> None:
    check_attend_fp8(triton_ops, dtype, [(1, 150), (35, 50), (1, 3)], heads)


def test_blocks_are_copied(triton_ops: TritonOps) -> None:
    check_copy_blocks(triton_ops, FP8, HeadShape(9, 3, 80), 16)
