"""The compiled kernels: against the specification on every instruction set that runs here, and the way they are built.

Each kernel's test names one fault that was put into the C source to see the test fail.
"""

import multiprocessing
import os
import platform
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
from kernel_cases import HEAD_SHAPES, MIXES, assert_near, poisoned_cache, random_case
from torch import Tensor

from headrace.kernels.batch import make_step_batch
from headrace.kernels.cpu_native import KernelLibrary, KernelsUnavailable, NativeOps, build, start_build
from headrace.kernels.cpu_native.build import load_kernels
from headrace.kernels.ops import HeadShape, Int4Groups, Linear
from headrace.kernels.quantize import quantize_rows
from headrace.kernels.torch_linear import dequantize_groups
from headrace.kernels.torch_ops import TorchOps

CPUS = ["native", "haswell", "x86-64"] if platform.machine() == "x86_64" else ["native"]
"""What the sources are compiled for: this CPU, one with AVX2 only, and one with neither."""
THREADS = 3
SIZES = [(1, 64, 64), (2, 50, 77), (13, 576, 33), (33, 33, 32), (97, 128, 130)]
"""Tokens, inputs, outputs."""


@pytest.fixture(scope="module", params=CPUS)
def library(request: pytest.FixtureRequest) -> KernelLibrary:
    return load_kernels(request.param)


@pytest.fixture
def native(library: KernelLibrary, dtype: torch.dtype) -> NativeOps:
    return NativeOps(library, dtype, THREADS)


@pytest.fixture
def native_bf16(library: KernelLibrary) -> NativeOps:
    return NativeOps(library, torch.bfloat16, THREADS)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Every tensor that is allocated uninitialized is full of NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def random_groups(inputs: int, outputs: int, group_size: int, *, halves: bool = True) -> Int4Groups:
    scale, minimum = torch.rand(2, outputs, inputs // group_size).mul_(0.02).unbind()
    if halves:
        scale, minimum = scale.half().float(), minimum.half().float()
    return Int4Groups(torch.randint(0, 16, (outputs, inputs), dtype=torch.uint8), scale, -7 * minimum)


def a_linear(ops: NativeOps, kind: str, inputs: int, outputs: int) -> Linear:
    if kind == "int4":
        return ops.int4(random_groups(inputs, outputs, 32))
    half = torch.randn(outputs, inputs // 2)
    weight = torch.cat((half, -half), dim=1).bfloat16()
    return ops.int8(weight) if kind == "int8" else ops.dense(weight)


ACTIVATION_GROUP = 64


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), SIZES)
def test_int8(native: NativeOps, dtype: torch.dtype, tokens: int, inputs: int, outputs: int, with_bias: bool) -> None:
    """The integer product by its groups. Fault: the correction for the weights' byte offset left out."""
    x, weight = torch.randn(tokens, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    bias = torch.randn(outputs).to(dtype) if with_bias else None
    actual = native.int8(weight, bias)(x)
    assert actual.dtype == dtype
    padded = torch.nn.functional.pad(x.float(), (0, -inputs % ACTIVATION_GROUP))
    q, scale = quantize_rows(padded.view(-1, ACTIVATION_GROUP))
    rounded = (q * scale).view(tokens, -1)[:, :inputs]
    assert_near(actual, TorchOps().int8(weight, bias)(rounded), dtype)


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("group_size", [16, 32, 64])
@pytest.mark.parametrize(("tokens", "outputs"), [(1, 32), (7, 77), (19, 130)])
def test_int4(native_bf16: NativeOps, tokens: int, outputs: int, group_size: int, halves: bool) -> None:
    """Exactly the weights of the groups, times activations in int8 by groups. Fault: the high nibbles not shifted."""
    groups, bias, x = (
        random_groups(192, outputs, group_size, halves=halves),
        torch.randn(outputs),
        torch.randn(tokens, 192),
    )
    q, scale = quantize_rows(x.view(-1, group_size))
    expected = (q * scale).view(tokens, 192).double() @ dequantize_groups(groups).double().t() + bias
    assert_near(native_bf16.int4(groups, bias)(x), expected, torch.float32)


def test_int4_is_close_to_unquantized_activations(native_bf16: NativeOps) -> None:
    groups, x = random_groups(576, 64, 32), torch.randn(9, 576).bfloat16()
    assert_near(native_bf16.int4(groups)(x), TorchOps().int4(groups)(x.float()), torch.bfloat16)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), SIZES)
def test_dense_bf16(native_bf16: NativeOps, tokens: int, inputs: int, outputs: int, with_bias: bool) -> None:
    """Fault: the second of each pair of inputs not multiplied."""
    x, weight = torch.randn(tokens, inputs).bfloat16(), torch.randn(outputs, inputs).bfloat16()
    bias = torch.randn(outputs).bfloat16() if with_bias else None
    exact = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
    assert_near(native_bf16.dense(weight, bias)(x), exact, torch.bfloat16)


@pytest.mark.parametrize("kind", ["int8", "int4", "dense"])
def test_a_row_gets_the_same_bits_alone_and_in_any_batch(native_bf16: NativeOps, kind: str) -> None:
    """Fault: blocks of twelve rows summed from the last input to the first."""
    if kind == "dense" and not native_bf16._packs_bf16:
        return  # torch's product, which promises less
    linear = a_linear(native_bf16, kind, 192, 96)
    half = torch.randn(120, 96)
    x = torch.cat(
        (half, half + torch.randn(120, 96) / 100), dim=1
    ).bfloat16()  # sums that nearly cancel show their order
    together = linear(x)
    for first, end in [(0, 1), (5, 7), (10, 13), (31, 36), (40, 52), (60, 119)]:
        assert torch.equal(linear(x[first:end]), together[first:end])


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_row_that_is_not_finite_says_so_and_harms_no_other(native_bf16: NativeOps, kind: str) -> None:
    linear, x = a_linear(native_bf16, kind, 64, 64), torch.randn(5, 64).bfloat16()
    healthy = linear(x)
    x[1, 3], x[4, 60] = torch.nan, torch.inf
    y = linear(x)
    assert not y[[1, 4]].isfinite().any()
    assert torch.equal(y[[0, 2, 3]], healthy[[0, 2, 3]])


def test_no_tokens(native: NativeOps, dtype: torch.dtype) -> None:
    x = torch.randn(0, 64, dtype=dtype)
    assert native.int8(torch.randn(32, 64).to(dtype))(x).shape == (0, 32)
    assert native.rms_norm(x, torch.ones(64), 1e-5).shape == (0, 64)


@pytest.mark.parametrize("size", [(1, 576), (5, 33), (140, 80)])
def test_norms(native: NativeOps, dtype: torch.dtype, size: tuple[int, int]) -> None:
    """Fault: the sum not written back."""
    x, residual, weight = torch.randn(size).to(dtype), torch.randn(size), torch.randn(size[1]).to(dtype)
    assert_near(native.rms_norm(x, weight, 1e-5), TorchOps().rms_norm(x, weight, 1e-5), dtype)
    expected_residual = residual.clone()
    expected = TorchOps().add_rms_norm(x, expected_residual, weight, 1e-5)
    assert_near(native.add_rms_norm(x, residual, weight, 1e-5), expected, dtype)
    assert torch.equal(residual, expected_residual)


@pytest.mark.parametrize("size", [(1, 64), (5, 66), (140, 160)])
def test_silu_and_mul(native: NativeOps, dtype: torch.dtype, size: tuple[int, int]) -> None:
    """Fault: gate and up exchanged."""
    gate_up = torch.randn(size).mul_(30).to(dtype)
    assert_near(native.silu_and_mul(gate_up), TorchOps().silu_and_mul(gate_up), dtype)


@pytest.mark.parametrize("with_norms", [False, True])
@pytest.mark.parametrize("heads", [*HEAD_SHAPES, HeadShape(3, 1, 20)], ids=str)
def test_rope_and_cache(native: NativeOps, dtype: torch.dtype, heads: HeadShape, with_norms: bool) -> None:
    """Fault: a key head written to the next head's place."""
    batch = make_step_batch([1, 60, 2], [9, 70, 2], [[3], [7, 1, 4, 6, 8], [2]], block_size=16)
    qkv = torch.randn(63, (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim).to(dtype)
    angle, norms = torch.randn(80, heads.head_dim // 2), torch.randn(2, heads.head_dim).to(dtype)
    angles, (q_norm, k_norm) = torch.cat((angle.cos(), angle.sin()), dim=1), norms if with_norms else (None, None)
    caches = [poisoned_cache(9, heads, dtype, 16) for _ in range(2)]
    q, expected = (
        ops.rope_and_cache(qkv, heads, angles, batch, cache, q_norm, k_norm, 1e-6)
        for ops, cache in zip((native, TorchOps()), caches, strict=True)
    )
    assert_near(q, expected, dtype)
    assert_near(caches[0].k.nan_to_num(77), caches[1].k.nan_to_num(77), dtype)
    assert torch.equal(caches[0].v.nan_to_num(77), caches[1].v.nan_to_num(77))


@pytest.mark.parametrize("window", [None, 37])
@pytest.mark.parametrize("heads", [HeadShape(9, 3, 64), HeadShape(8, 1, 80), HeadShape(3, 1, 20)], ids=str)
@pytest.mark.parametrize("mix", ["one token", "one long row among short ones", "mixed"])
def test_attend(native: NativeOps, dtype: torch.dtype, mix: str, heads: HeadShape, window: int | None) -> None:
    """Fault: the values of earlier tiles not brought down to a new maximum."""
    case = random_case(MIXES[mix], heads, dtype)
    actual = native.attend(case.q, case.cache, case.batch, 0.2, window)
    assert_near(actual, TorchOps().attend(case.q, case.cache, case.batch, 0.2, window), dtype)


@pytest.mark.parametrize("window", [None, 600])
def test_attend_over_several_ranges(native: NativeOps, dtype: torch.dtype, window: int | None) -> None:
    """Rows long enough to be cut along their keys. Fault: only the first range merged."""
    rows = [(1, 1700), (3, 513), (90, 1100), (1, 512)]
    case = random_case(rows, HeadShape(4, 2, 32), dtype, block_size=24)
    actual = native.attend(case.q, case.cache, case.batch, 0.2, window)
    assert_near(actual, TorchOps().attend(case.q, case.cache, case.batch, 0.2, window), dtype)


@pytest.mark.parametrize("window", [None, 100])
def test_attend_gives_a_query_the_same_bits_however_it_is_cut(
    native: NativeOps, dtype: torch.dtype, window: int | None
) -> None:
    """Decode, chunk or whole prompt; alone or in a batch. Fault: tiles counted from the window's first key."""
    heads = HeadShape(6, 2, 32)
    whole = random_case([(1300, 1300)], heads, dtype)
    expected = native.attend(whole.q, whole.cache, whole.batch, 0.2, window)
    for first, end in [(1299, 1300), (600, 1300), (500, 531), (0, 70)]:
        tables = [whole.tables[0][: -(-end // 16)], whole.tables[0][:3]]
        batch = make_step_batch([end - first, 1], [end, 40], tables, block_size=16)
        q = torch.cat((whole.q[first:end], torch.randn_like(whole.q[:1])))
        actual = native.attend(q, whole.cache, batch, 0.2, window)
        assert torch.equal(actual[:-1], expected[first:end])


def test_threads_change_nothing(library: KernelLibrary) -> None:
    results = []
    for threads in (1, 4):
        torch.manual_seed(3)
        ops = NativeOps(library, torch.bfloat16, threads)
        x, case = (
            torch.randn(150, 192).bfloat16(),
            random_case([(1, 1200), (80, 80)], HeadShape(6, 2, 32), torch.bfloat16),
        )
        attended = ops.attend(case.q, case.cache, case.batch, 0.2, None)
        results.append([a_linear(ops, "int8", 192, 160)(x), a_linear(ops, "int4", 192, 160)(x), attended])
    assert all(torch.equal(one, many) for one, many in zip(*results, strict=True))


def test_two_python_threads_share_one_engine(native_bf16: NativeOps) -> None:
    linear, x = a_linear(native_bf16, "int8", 576, 320), torch.randn(40, 576).bfloat16()
    expected, wrong = linear(x), []

    def repeat() -> None:
        wrong.extend(None for _ in range(50) if not torch.equal(linear(x), expected))

    threads = [threading.Thread(target=repeat) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _multiply_in_child(linear: Linear, x: Tensor, expected: Tensor) -> None:
    os._exit(0 if torch.equal(linear(x), expected) else 1)


def test_a_forked_child_computes_without_the_parents_threads(native_bf16: NativeOps) -> None:
    linear, x = a_linear(native_bf16, "int8", 64, 320), torch.randn(40, 64).bfloat16()
    child = multiprocessing.get_context("fork").Process(target=_multiply_in_child, args=(linear, x, linear(x)))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0


def test_threads_end_with_their_engine(library: KernelLibrary) -> None:
    before = psutil.Process().num_threads()
    for _ in range(20):
        NativeOps(library, torch.bfloat16, 4).rms_norm(torch.ones(9, 4000), torch.ones(4000), 1e-5)
    assert psutil.Process().num_threads() == before


def test_weights_are_freed_with_their_layers(native_bf16: NativeOps) -> None:
    process, weight = psutil.Process(), torch.randn(4096, 4096).bfloat16()
    native_bf16.int8(weight)
    before = process.memory_info().rss
    for _ in range(10):
        assert native_bf16.int8(weight).nbytes < 1.01 * weight.numel()
    assert process.memory_info().rss - before < 6 * weight.numel()


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_compiler(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_is_built_once(fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    monkeypatch.setenv("CC", str(a_compiler(tmp_path / "counting-cc", f'echo "$@" >> {calls}; exec cc "$@" -O0')))
    load_kernels()
    assert "-shared" in calls.read_text()
    calls.write_text("")
    load_kernels()
    assert calls.read_text().split() == ["--version"]
    assert [path.suffix for path in (fresh_cache / "kernels").iterdir()] == [".so"]


def test_two_builds_at_once(fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(a_compiler(tmp_path / "quick-cc", 'exec cc "$@" -O0')))
    with ThreadPoolExecutor(2) as executor:
        builds = list(executor.map(load_kernels, ["native"] * 2))
    assert all(isinstance(build, KernelLibrary) for build in builds)
    assert len(list((fresh_cache / "kernels").iterdir())) == 1


def test_works_where_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file where the cache folder should be")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("CC", str(a_compiler(tmp_path / "quick-cc", 'exec cc "$@" -O0')))
    ops = NativeOps(load_kernels(), torch.float32, 1)
    assert torch.equal(ops.rms_norm(torch.ones(1, 4), torch.ones(4), 0.0), torch.ones(1, 4))


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "failed"),
        ('case "$1" in --version) ;; *) echo "x.c:1: error: no such thing" >&2; exit 1;; esac', "no such thing"),
    ],
)
def test_a_compiler_that_fails_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setenv("CC", str(a_compiler(tmp_path / "bad-cc", script)))
    with pytest.raises(KernelsUnavailable, match=reason) as failure:
        load_kernels()
    assert "bad-cc" in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.usefixtures("fresh_cache")
def test_no_compiler_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelsUnavailable, match="install gcc"):
        load_kernels()


def test_a_damaged_cache_is_mended(fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(a_compiler(tmp_path / "quick-cc", 'exec cc "$@" -O0')))
    load_kernels()
    (built,) = (fresh_cache / "kernels").iterdir()
    built.unlink()
    built.write_bytes(b"not a library")
    assert isinstance(load_kernels(), KernelLibrary)


def test_is_not_built_where_torch_is_faster(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_cpu_features", lambda: "x86_64 flags : sse2 avx2 f16c")
    with pytest.raises(KernelsUnavailable, match="AVX-512"):
        start_build().result()
    assert not fresh_cache.exists()


def test_is_built_in_the_background_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_cpu_features", lambda: "x86_64 flags : avx2 avx512f avx512_vnni")
    assert isinstance(start_build().result(), KernelLibrary)
