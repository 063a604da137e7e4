"""The residual stream around linear layers: against fp64, for every implementation and for the specification."""

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import assert_near
from torch import Tensor

from headrace.kernels.ops import Ops, ResidualStream
from headrace.kernels.torch_ops import TorchOps

TOKENS, HIDDEN, INNER = 5, 96, 64


@pytest.fixture(params=["implementation", "specification"])
def any_ops(request: pytest.FixtureRequest, ops: Ops) -> Ops:
    return ops if request.param == "implementation" else TorchOps()


def normed(total: Tensor, weight: Tensor) -> Tensor:
    wide = total.double()
    return wide * (wide.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt() * weight.double()


def test_a_block_reads_the_stream_and_adds_to_it(any_ops: Ops, dtype: torch.dtype) -> None:
    total, norm = torch.randn(TOKENS, HIDDEN), torch.randn(HIDDEN).to(dtype)
    first, second = torch.randn(2 * INNER, HIDDEN).to(dtype) / 10, torch.randn(HIDDEN, INNER).to(dtype) / 8
    stream, x = ResidualStream(total.clone(), dtype), normed(total, norm)
    y = any_ops.norm_linear(stream, norm, 1e-5, any_ops.dense(first.clone()))
    assert y.dtype == dtype
    assert_near(y, x @ first.double().t(), dtype)
    inner = any_ops.norm_gate_up(stream, norm, 1e-5, any_ops.dense(first.clone()))
    gate, up = (x @ first.double().t()).chunk(2, dim=1)
    assert_near(inner, F.silu(gate) * up, dtype, factor=2)
    any_ops.linear_add(inner, any_ops.dense(second.clone()), stream)
    expected = total + inner.double() @ second.double().t()
    y = any_ops.norm_stream(stream, norm, 1e-5)
    assert y.dtype == dtype
    assert_near(y, normed(expected, norm), dtype)
    assert_near(stream.total, expected, dtype)


def test_what_is_pending_is_added_once(any_ops: Ops, dtype: torch.dtype) -> None:
    total, pending = torch.randn(TOKENS, HIDDEN), torch.randn(TOKENS, HIDDEN).to(dtype)
    stream, norm = ResidualStream(total.clone(), dtype, pending), torch.ones(HIDDEN, dtype=dtype)
    for _ in range(2):
        assert_near(any_ops.norm_stream(stream, norm, 1e-5), normed(total + pending, norm), dtype)
    assert torch.equal(stream.total, total + pending)
    assert stream.pending is None
