"""Attention over the paged cache: every implementation against the specification, and the specification by hand."""

import pytest
import torch
from kernel_cases import HEAD_SHAPES, IMPLEMENTATIONS, MIXES, Case, assert_near, random_case
from torch import Tensor

from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import HeadShape, Ops
from headrace.kernels.torch_ops import TorchOps


def attend_by_hand(case: Case, rows: list[tuple[int, int]], window: int | None, scale: float) -> Tensor:
    """Softmax attention in fp64, one query of one head at a time."""
    out, at = [], 0
    group = case.q.shape[1] // case.cache.k.shape[1]
    for (new, length), table in zip(rows, case.tables, strict=True):
        keys, values = (
            torch.cat([t[b] for b in table], dim=1)[:, :length].double() for t in (case.cache.k, case.cache.v)
        )
        for position in range(length - new, length):
            low = 0 if window is None else max(0, position - window + 1)
            for head, query in enumerate(case.q[at].double()):
                weights = (keys[head // group, low : position + 1] @ query * scale).softmax(dim=0)
                out.append(weights @ values[head // group, low : position + 1])
            at += 1
    return torch.stack(out).view(at, -1)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("mix", ["one token", "decode", "prefill", "mixed"])
def test_specification_is_softmax_attention(mix: str, window: int | None) -> None:
    heads = HeadShape(4, 2, 16)
    case = random_case(MIXES[mix], heads, torch.float32, block_size=8)
    actual = TorchOps().attend(case.q, case.cache, case.batch, 0.25, window)
    assert_near(actual, attend_by_hand(case, MIXES[mix], window, 0.25), torch.float32)


@pytest.mark.parametrize("heads", HEAD_SHAPES, ids=str)
@pytest.mark.parametrize("mix", MIXES)
def test_agrees_with_the_specification(ops: Ops, dtype: torch.dtype, mix: str, heads: HeadShape) -> None:
    case = random_case(MIXES[mix], heads, dtype)
    actual = ops.attend(case.q, case.cache, case.batch, heads.head_dim**-0.5, None)
    assert actual.dtype == dtype
    assert_near(actual, TorchOps().attend(case.q, case.cache, case.batch, heads.head_dim**-0.5, None), dtype)


@pytest.mark.parametrize("window", [1, 5, 16, 40, 5000])
@pytest.mark.parametrize("mix", ["decode", "one long row among short ones", "long prefill", "mixed"])
def test_window(ops: Ops, dtype: torch.dtype, mix: str, window: int) -> None:
    case = random_case(MIXES[mix], HeadShape(6, 2, 32), dtype)
    actual = ops.attend(case.q, case.cache, case.batch, 0.2, window)
    assert_near(actual, TorchOps().attend(case.q, case.cache, case.batch, 0.2, window), dtype)


@pytest.mark.parametrize("block_size", [8, 32, 128])
def test_block_sizes(ops: Ops, dtype: torch.dtype, block_size: int) -> None:
    case = random_case(MIXES["mixed"], HeadShape(9, 3, 64), dtype, block_size)
    actual = ops.attend(case.q, case.cache, case.batch, 0.125, None)
    assert_near(actual, TorchOps().attend(case.q, case.cache, case.batch, 0.125, None), dtype)


def test_one_batch_serves_layers_with_different_windows(ops: Ops, dtype: torch.dtype) -> None:
    case = random_case(MIXES["mixed"], HeadShape(6, 2, 32), dtype)
    for window in (None, 9, None, 30):
        actual = ops.attend(case.q, case.cache, case.batch, 0.2, window)
        assert_near(actual, TorchOps().attend(case.q, case.cache, case.batch, 0.2, window), dtype)


def test_blocks_before_the_window_are_not_read(ops: Ops, dtype: torch.dtype) -> None:
    rows = [(1, 70), (3, 64), (1, 200)]
    case = random_case(rows, HeadShape(4, 2, 32), dtype)
    expected = TorchOps().attend(case.q, case.cache, case.batch, 0.2, 20)
    for table, (new, length) in zip(case.tables, rows, strict=True):
        for block in table[: (length - new - 19) // 16]:
            case.cache.k[block] = case.cache.v[block] = torch.nan
    assert_near(ops.attend(case.q, case.cache, case.batch, 0.2, 20), expected, dtype)


def test_an_offset_common_to_all_keys_changes_nothing(ops: Ops, dtype: torch.dtype) -> None:
    """As large key biases (Qwen2) make it: scores of hundreds that differ by little."""
    heads = HeadShape(6, 2, 64)
    case = random_case(MIXES["decode"] + MIXES["prefill"], heads, dtype)
    offset = torch.randn(heads.num_kv_heads, 1, heads.head_dim).mul_(4).to(dtype)
    case.cache.k += offset
    case.q += 2 * offset.repeat_interleave(3, dim=0).squeeze(1)
    actual = ops.attend(case.q, case.cache, case.batch, 0.125, None)
    assert_near(actual, TorchOps().attend(case.q, case.cache, case.batch, 0.125, None), dtype, factor=10)


def test_poison_in_one_row_stays_in_it(ops: Ops, dtype: torch.dtype) -> None:
    rows = [(1, 40), (1, 38), (6, 30), (6, 29)]
    case = random_case(rows, HeadShape(6, 2, 32), dtype)
    expected = TorchOps().attend(case.q, case.cache, case.batch, 0.2, None)
    for table in (case.tables[1], case.tables[3]):
        case.cache.k[table[0]] = case.cache.v[table[0]] = torch.nan
    actual = ops.attend(case.q, case.cache, case.batch, 0.2, None)
    healthy = [0, *range(2, 8)]
    assert_near(actual[healthy], expected[healthy], dtype)
    assert actual[1].isnan().all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_results_do_not_depend_on_the_step(implementation: str) -> None:
    """Bit for bit the same alone, beside other rows, and however a prompt is cut into chunks."""
    rows, heads = [(1, 40), (200, 200), (1, 300), (64, 150)], HeadShape(6, 2, 64)
    ops, case = IMPLEMENTATIONS[implementation](torch.bfloat16), random_case(rows, heads, torch.bfloat16)
    together = ops.attend(case.q, case.cache, case.batch, 0.125, None)
    queries = case.q.split([new for new, _ in rows])
    apart = []
    for (new, length), table, query in zip(rows, case.tables, queries, strict=True):
        cached = length - new
        for chunk in query.split(37):
            cached += len(chunk)
            batch = make_step_batch([len(chunk)], [cached], [table], 16)
            apart.append(ops.attend(chunk, case.cache, batch, 0.125, None))
    assert torch.equal(torch.cat(apart), together)
