"""The differential tests of the kernels: each runs the kernels and their twin in torch on the same fresh inputs."""

import torch
from gpu_cases import DEVICE, batch_on_device, device_cache, device_case
from kernel_cases import assert_near
from torch import Tensor

from headrace.kernels.batch import make_step_batch
from headrace.kernels.cache_dtype import FP8
from headrace.kernels.ops import HeadShape, LayerCache, Ops, ResidualStream
from headrace.kernels.torch_ops import TorchOps

Rows = list[tuple[int, int]]


def check_rms_norm(ops: Ops, dtype: torch.dtype, tokens: int, width: int) -> None:
    """Rows may be farther apart than they are wide."""
    x = torch.randn(tokens, width + 8, device=DEVICE).to(dtype)[:, :width]
    weight = torch.randn(width, device=DEVICE).to(dtype)
    assert_near(ops.rms_norm(x, weight, 1e-5), TorchOps().rms_norm(x, weight, 1e-5), dtype)


def check_add_rms_norm(ops: Ops, dtype: torch.dtype, tokens: int, width: int) -> None:
    """The residual is the same to the last bit."""
    x, residual = torch.randn(tokens, width, device=DEVICE).to(dtype), torch.randn(tokens, width, device=DEVICE)
    weight, expected_residual = torch.randn(width, device=DEVICE), residual.clone()
    y = ops.add_rms_norm(x, residual, weight, 1e-6)
    assert_near(y, TorchOps().add_rms_norm(x, expected_residual, weight, 1e-6), dtype)
    assert torch.equal(residual, expected_residual)


def check_silu_and_mul(ops: Ops, dtype: torch.dtype, tokens: int, width: int) -> None:
    """Both tails of silu are among the values."""
    gate_up = torch.randn(tokens, 2 * width, device=DEVICE).mul_(30).to(dtype)
    assert_near(ops.silu_and_mul(gate_up), TorchOps().silu_and_mul(gate_up), dtype)


def check_norm_linear(ops: Ops, dtype: torch.dtype, tokens: int, inputs: int, outputs: int, bias: bool = False) -> None:
    """A linear layer after the norm of the residual stream, alone and with silu and product behind it."""
    (weight, offset), norm = random_linear(inputs, 2 * outputs, dtype, bias), torch.randn(inputs, device=DEVICE)
    total = 3 * torch.randn(tokens, inputs, device=DEVICE)
    actual, expected = ResidualStream(total.clone(), dtype), ResidualStream(total.clone(), dtype)
    linears = ops.dense(weight, offset), TorchOps().dense(weight, offset)
    y = ops.norm_linear(actual, norm, 1e-5, linears[0])
    assert_near(y, TorchOps().norm_linear(expected, norm, 1e-5, linears[1]), dtype)
    y = ops.norm_gate_up(actual, norm, 1e-5, linears[0])
    assert_near(y, TorchOps().norm_gate_up(expected, norm, 1e-5, linears[1]), dtype)
    assert torch.equal(actual.total, total)


def check_linear_add(ops: Ops, dtype: torch.dtype, tokens: int, inputs: int, outputs: int, bias: bool = False) -> None:
    """What a linear layer adds to the residual stream, now or at the next norm; and the layer by itself."""
    (weight, offset), norm = random_linear(inputs, outputs, dtype, bias), torch.randn(outputs, device=DEVICE)
    x, total = torch.randn(tokens, inputs, device=DEVICE).to(dtype), torch.randn(tokens, outputs, device=DEVICE)
    actual, expected = ResidualStream(total.clone(), dtype), ResidualStream(total.clone(), dtype)
    linears = ops.dense(weight, offset), TorchOps().dense(weight, offset)
    assert_near(linears[0](x), linears[1](x), dtype)
    ops.linear_add(x, linears[0], actual)
    TorchOps().linear_add(x, linears[1], expected)
    assert_near(ops.norm_stream(actual, norm, 1e-5), TorchOps().norm_stream(expected, norm, 1e-5), dtype)
    assert_near(actual.total, expected.total, dtype)


def random_linear(inputs: int, outputs: int, dtype: torch.dtype, bias: bool) -> tuple[Tensor, Tensor | None]:
    """A weight [outputs, inputs] that keeps the size of its inputs, and a bias."""
    weight = torch.randn(outputs, inputs, device=DEVICE) / inputs**0.5
    return weight.to(dtype), torch.randn(outputs, device=DEVICE).to(dtype) if bias else None


def check_rope_and_cache(
    ops: Ops, dtype: torch.dtype, heads: HeadShape, block_size: int = 16, *, with_norms: bool = True
) -> None:
    """Queries and both caches, the unwritten places included; QKV is cut out of something wider."""
    batch = batch_on_device(make_step_batch([1, 7, 3, 1], [8, 23, 9, 1], [[4, 0], [2, 6, 1], [3, 5], [7]], block_size))
    width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
    qkv = torch.randn(12, width + 16, device=DEVICE).to(dtype)
    cos_sin = torch.randn(64, heads.head_dim, device=DEVICE)
    norms = torch.randn(2, heads.head_dim, device=DEVICE).to(dtype).unbind() if with_norms else (None, None)
    caches = [device_cache(8, heads, dtype, block_size) for _ in range(2)]
    q = ops.rope_and_cache(qkv[:, :width], heads, cos_sin, batch, caches[0], *norms, eps=1e-6)
    packed = qkv[:, :width].contiguous()
    assert_near(q, TorchOps().rope_and_cache(packed, heads, cos_sin, batch, caches[1], *norms, eps=1e-6), dtype)
    assert_same_cache(caches[0], caches[1], dtype)


def assert_same_cache(actual: LayerCache, expected: LayerCache, dtype: torch.dtype) -> None:
    """The same places written, keys near, values equal."""
    written = ~expected.k.isnan()
    assert torch.equal(~actual.k.isnan(), written)
    assert_near(actual.k[written], expected.k[written], dtype)
    assert torch.equal(actual.v.nan_to_num(nan=77.0), expected.v.nan_to_num(nan=77.0))


def check_attend(
    ops: Ops, dtype: torch.dtype, rows: Rows, heads: HeadShape, window: int | None = None, block_size: int = 16
) -> None:
    """Fresh keys and values, NaN where nothing was written; twice, for what one call leaves behind for the next."""
    case = device_case(rows, heads, dtype, block_size)
    expected = TorchOps().attend(case.q, case.cache, batch_on_device(case.batch), heads.head_dim**-0.5, window)
    for _ in range(2):
        actual = ops.attend(case.q, case.cache, case.batch, heads.head_dim**-0.5, window)
        assert_near(actual, expected, dtype)


def check_copy_blocks(ops: Ops, dtype: torch.dtype, heads: HeadShape, block_size: int) -> None:
    """Copied blocks and all others; the pairs are interleaved, as the engine has them."""
    shape = (9, heads.num_kv_heads, block_size, heads.head_dim)
    cache = LayerCache(torch.randn(shape, device=DEVICE).to(dtype), torch.randn(shape, device=DEVICE).to(dtype))
    expected = LayerCache(cache.k.clone(), cache.v.clone())
    source, target = torch.tensor([(1, 5), (4, 0), (8, 7)], device=DEVICE).unbind(1)
    ops.copy_blocks(cache, source, target)
    TorchOps().copy_blocks(expected, source, target)
    assert torch.equal(cache.k, expected.k)
    assert torch.equal(cache.v, expected.v)


def check_rope_and_fp8_cache(ops: Ops, dtype: torch.dtype, heads: HeadShape, size: float) -> None:
    """Values equal; keys too, but for the few whose last bits before rounding decided; nothing else written."""
    batch = batch_on_device(make_step_batch([1, 7, 3, 1], [8, 23, 9, 1], [[4, 0], [2, 6, 1], [3, 5], [7]], 16))
    qkv = torch.randn(12, (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim, device=DEVICE)
    qkv = qkv.mul_(size).to(dtype)
    cos_sin = torch.randn(64, heads.head_dim, device=DEVICE)
    ours, theirs = (device_cache(8, heads, FP8, 16) for _ in range(2))
    q = ops.rope_and_cache(qkv, heads, cos_sin, batch, ours)
    assert_near(q, TorchOps().rope_and_cache(qkv, heads, cos_sin, batch, theirs), dtype)
    assert torch.equal(ours.v.float().nan_to_num(nan=777.0), theirs.v.float().nan_to_num(nan=777.0))
    keys, expected = ours.k.float(), theirs.k.float()
    assert torch.equal(keys.isnan(), expected.isnan())
    differ = keys.nan_to_num() != expected.nan_to_num()
    assert differ.float().mean() < 1e-3
    step = (keys - expected)[differ].abs() / expected[differ].abs().clamp_min(2**-9)
    assert bool((step <= 1).all())


def check_attend_fp8(
    ops: Ops, dtype: torch.dtype, rows: Rows, heads: HeadShape, window: int | None = None, block_size: int = 16
) -> None:
    """As `check_attend`, over a cache in fp8."""
    case = device_case(rows, heads, dtype, block_size)
    cache = LayerCache(case.cache.k.to(FP8), case.cache.v.to(FP8))
    expected = TorchOps().attend(case.q, cache, batch_on_device(case.batch), heads.head_dim**-0.5, window)
    assert_near(ops.attend(case.q, cache, case.batch, heads.head_dim**-0.5, window), expected, dtype)
