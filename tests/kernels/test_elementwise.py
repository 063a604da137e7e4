"""Norms and activation: against fp64, for every implementation and for the specification."""

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import assert_near
from torch import Tensor

from headrace.kernels.ops import Ops
from headrace.kernels.torch_ops import TorchOps


def rms_norm_by_hand(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.double()
    return wide / (wide.square().mean(dim=1, keepdim=True) + eps).sqrt() * weight.double()


@pytest.fixture(params=["implementation", "specification"])
def any_ops(request: pytest.FixtureRequest, ops: Ops) -> Ops:
    return ops if request.param == "implementation" else TorchOps()


@pytest.mark.parametrize("size", [(1, 576), (7, 33), (130, 64)])
@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 1e3])
def test_rms_norm(any_ops: Ops, dtype: torch.dtype, size: tuple[int, int], magnitude: float) -> None:
    x, weight = torch.randn(size).mul_(magnitude).to(dtype), torch.randn(size[1]).to(dtype)
    assert_near(any_ops.rms_norm(x, weight, 1e-5), rms_norm_by_hand(x, weight, 1e-5), dtype)


def test_rms_norm_of_zeros_is_zeros(any_ops: Ops, dtype: torch.dtype) -> None:
    x = torch.zeros(2, 64, dtype=dtype)
    assert torch.equal(any_ops.rms_norm(x, torch.ones(64, dtype=dtype), 1e-6), x)


def test_rms_norm_with_a_weight_in_fp32(any_ops: Ops, dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 64).to(dtype), torch.randn(64)
    y = any_ops.rms_norm(x, weight, 1e-5)
    assert y.dtype == dtype
    assert_near(y, rms_norm_by_hand(x, weight, 1e-5), dtype)


def test_add_rms_norm_adds_in_place(any_ops: Ops, dtype: torch.dtype) -> None:
    x, residual, weight = torch.randn(7, 96).to(dtype), torch.randn(7, 96), torch.randn(96).to(dtype)
    total = x + residual
    y = any_ops.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(residual, total)
    assert_near(y, rms_norm_by_hand(total, weight, 1e-5), dtype)


@pytest.mark.parametrize("size", [(1, 3072), (9, 34)])
def test_silu_and_mul(any_ops: Ops, dtype: torch.dtype, size: tuple[int, int]) -> None:
    gate_up = torch.randn(size).mul_(4).to(dtype)
    before = gate_up.clone()
    gate, up = before.double().chunk(2, dim=1)
    assert_near(any_ops.silu_and_mul(gate_up), F.silu(gate) * up, dtype)
    assert torch.equal(gate_up, before)
