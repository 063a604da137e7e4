"""Linear layers with their neighbours against their twins in torch: every way that they take, at every width."""

import pytest
import torch
from checks import check_linear_add, check_norm_linear, random_linear
from gpu_cases import DEVICE, EVERY_DTYPE

from headrace.kernels.gpu.ops import TritonOps
from headrace.kernels.ops import ResidualStream

GEMV, MATMUL, CUBLAS = (1, 2), (3, 16), (17,)
SHAPES = [(256, 96), (1024, 48), (384, 32), (2048, 160), (520, 20), (1280, 34)]
"""Inputs and outputs: whole tiles, one program's, three turns, more than registers hold, and such as do not divide."""


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tokens", GEMV + MATMUL + CUBLAS)
def test_every_way(triton_ops: TritonOps, tokens: int, shape: tuple[int, int]) -> None:
    check_norm_linear(triton_ops, torch.float16, tokens, *shape)
    check_linear_add(triton_ops, torch.float16, tokens, *shape)


@pytest.mark.parametrize("tokens", [1, 7, 20])
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_biases(triton_ops: TritonOps, dtype: torch.dtype, tokens: int) -> None:
    check_norm_linear(triton_ops, dtype, tokens, 256, 64, bias=True)
    check_linear_add(triton_ops, dtype, tokens, 256, 64, bias=True)


@pytest.mark.parametrize("tokens", [2, 9])
def test_layers_of_many_inputs(triton_ops: TritonOps, tokens: int) -> None:
    check_linear_add(triton_ops, torch.float16, tokens, 14336, 32)


def test_quantized_layers_take_the_long_way(triton_ops: TritonOps) -> None:
    weight, _ = random_linear(256, 64, torch.float32, False)
    norm, linear = torch.ones(256, device=DEVICE), triton_ops.int8(weight)
    stream = ResidualStream(torch.randn(1, 256, device=DEVICE), torch.float32)
    expected = triton_ops.silu_and_mul(linear(triton_ops.rms_norm(stream.total, norm, 1e-5)))
    assert torch.equal(triton_ops.norm_gate_up(stream, norm, 1e-5, linear), expected)
    triton_ops.linear_add(expected, triton_ops.int8(weight.t().contiguous()[:, :32]), stream)
    assert stream.pending is not None


@pytest.mark.parametrize("tokens", [2, 12])
def test_a_token_does_not_depend_on_what_its_mates_hold(triton_ops: TritonOps, tokens: int) -> None:
    (weight, _), norm = random_linear(512, 64, torch.float16, False), torch.randn(512, device=DEVICE)
    linear, total = triton_ops.dense(weight), torch.randn(tokens, 512, device=DEVICE)
    results = []
    for others in (1.0, torch.nan):
        total[1:] *= others
        results.append(triton_ops.norm_gate_up(ResidualStream(total, torch.float16), norm, 1e-5, linear)[0])
    assert torch.equal(*results)
