"""Linear layers: exact products, the two quantized forms by their definitions, and rows that do not meet."""

import pytest
import torch
from kernel_cases import IMPLEMENTATIONS, assert_near
from torch import Tensor

from headrace.kernels.ops import Int4Groups, Linear, Ops
from headrace.kernels.torch_ops import TorchOps

SIZES = [(1, 64, 64), (3, 576, 192), (33, 96, 640), (130, 256, 128), (5, 160, 48)]
"""Tokens, inputs, outputs."""


def a_linear(ops: Ops, kind: str, dtype: torch.dtype, inputs: int, outputs: int, with_bias: bool = False) -> Linear:
    torch.manual_seed(2)
    bias = torch.randn(outputs).to(dtype) if with_bias else None
    if kind == "int4":
        return ops.int4(some_groups(inputs, outputs), bias)
    weight = torch.randn(outputs, inputs).mul_(0.1).to(dtype)
    return ops.int8(weight, bias) if kind == "int8" else ops.dense(weight, bias)


def some_groups(inputs: int, outputs: int) -> Int4Groups:
    scale = torch.rand(outputs, inputs // 32).mul_(0.02).half().float()
    return Int4Groups(
        torch.randint(0, 16, (outputs, inputs), dtype=torch.uint8),
        scale,
        (scale * -7.5 + torch.randn_like(scale) * 0.005).half().float(),
    )


def int8_by_hand(x: Tensor, weight: Tensor) -> Tensor:
    """The definition: the weight rounded to 255 steps a row, and an exact product."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return x.double() @ ((weight / scale).round().double() * scale.double()).t()


def assert_agrees(actual: Tensor, expected: Tensor, kind: str) -> None:
    """To rounding, but for int8, which may quantize activations as well."""
    if kind == "int8":
        difference, size = actual.double() - expected.double(), float(expected.double().std())
        assert float(difference.std()) < 0.012 * size and float(difference.abs().max()) < 0.08 * size
    else:
        assert_near(actual, expected, actual.dtype, factor=4 if actual.dtype == torch.float32 else 1)


def test_specification_of_int8_is_a_rounded_weight() -> None:
    x, weight = torch.randn(9, 200), torch.randn(31, 200)
    assert_near(TorchOps().int8(weight.clone())(x), int8_by_hand(x, weight), torch.float32)


def test_specification_of_int4_is_scale_and_minimum() -> None:
    groups = some_groups(64, 48)
    weight = torch.empty(48, 64, dtype=torch.float64)
    for row in range(48):
        for column in range(64):
            group = column // 32
            weight[row, column] = groups.q[row, column] * groups.scale[row, group] + groups.minimum[row, group]
    assert_near(TorchOps().int4(groups)(torch.eye(64)), weight.t(), torch.float32)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), SIZES)
@pytest.mark.parametrize("kind", ["dense", "int8", "int4"])
def test_agrees_with_the_specification(
    ops: Ops, dtype: torch.dtype, kind: str, tokens: int, inputs: int, outputs: int, with_bias: bool
) -> None:
    x = torch.randn(tokens, inputs).to(dtype)
    actual = a_linear(ops, kind, dtype, inputs, outputs, with_bias)(x)
    expected = a_linear(TorchOps(), kind, dtype, inputs, outputs, with_bias)(x)
    assert actual.dtype == dtype
    assert_agrees(actual, expected, kind)


def test_int8_keeps_small_activations_beside_large_ones(ops: Ops, dtype: torch.dtype) -> None:
    """A few large values must not cost the others their bits: the small ones' share of the output is still right."""
    weight, x = torch.randn(96, 576).to(dtype), torch.randn(4, 576)
    x[:, 7] = 200.0
    small = weight.float().clone()
    small[:, 7] = 0
    y, without = (ops.int8(w.to(dtype))(x.to(dtype)).float() for w in (weight.clone(), small))
    share = y - 200.0 * (weight.float()[:, 7])
    assert float((share - without).std()) < 0.2 * float(without.std())


@pytest.mark.parametrize("kind", ["dense", "int8", "int4"])
def test_a_row_does_not_see_the_values_of_its_batch_mates(ops: Ops, dtype: torch.dtype, kind: str) -> None:
    linear = a_linear(ops, kind, dtype, 128, 96)
    x = torch.randn(17, 128).to(dtype)
    wild = x.clone()
    wild[1:] *= 300
    assert torch.equal(linear(x)[0], linear(wild)[0])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["dense", "int8", "int4"])
def test_bfloat16_gives_a_row_the_same_alone_and_in_a_batch(implementation: str, kind: str) -> None:
    """To the bit; but oneDNN, which has other kernels for other numbers of tokens, to the last bit of bfloat16."""
    linear = a_linear(IMPLEMENTATIONS[implementation](torch.bfloat16), kind, torch.bfloat16, 576, 192)
    x = torch.randn(140, 576).to(torch.bfloat16)
    alone = torch.cat([linear(row.unsqueeze(0)) for row in x])
    for tokens in (2, 17, 140):
        together = linear(x[:tokens])
        if kind == "dense":
            torch.testing.assert_close(together, alone[:tokens], rtol=2**-7, atol=2**-9)
        else:
            assert torch.equal(together, alone[:tokens])


def test_int8_gives_a_row_the_same_alone_and_in_a_batch(ops: Ops, dtype: torch.dtype) -> None:
    linear = a_linear(ops, "int8", dtype, 576, 192)
    x = torch.randn(40, 576).to(dtype)
    assert_near(linear(x), torch.cat([linear(row.unsqueeze(0)) for row in x]), torch.float32)


@pytest.mark.parametrize("kind", ["dense", "int8", "int4"])
def test_rows_of_zeros(ops: Ops, dtype: torch.dtype, kind: str) -> None:
    x = torch.randn(4, 64).to(dtype)
    x[1] = 0
    y = a_linear(ops, kind, dtype, 64, 64)(x)
    assert torch.equal(y[1], torch.zeros_like(y[1]))
    assert y.isfinite().all()


def test_int8_weight_with_a_row_of_zeros(ops: Ops, dtype: torch.dtype) -> None:
    weight = torch.randn(64, 64).to(dtype)
    weight[5] = 0
    assert (ops.int8(weight)(torch.randn(3, 64).to(dtype))[:, 5] == 0).all()


def test_int8_at_the_ends_of_its_range(ops: Ops, dtype: torch.dtype) -> None:
    """All products of one sign: an implementation that accumulates in 16 bits saturates."""
    y = ops.int8(torch.full((64, 256), 2.0, dtype=dtype))(torch.full((3, 256), -3.0, dtype=dtype))
    assert_near(y, torch.full((3, 64), -1536.0), dtype)


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8.5), ("int4", 6.1)])
def test_quantized_weights_are_kept_once(ops: Ops, dtype: torch.dtype, kind: str, bits: float) -> None:
    assert a_linear(ops, kind, dtype, 512, 512).nbytes <= 512 * 512 * bits / 8
