"""Attention against its twin in torch: lengths, chunks, windows, head shapes, block sizes, mixtures."""

import pytest
import torch
from checks import check_attend
from gpu_cases import EVERY_DTYPE, batch_on_device, device_case
from kernel_cases import MIXES, assert_near

from headrace.kernels.batch import make_step_batch
from headrace.kernels.gpu.decode_plan import chunk_rule
from headrace.kernels.gpu.device import GpuTraits
from headrace.kernels.gpu.ops import TritonOps
from headrace.kernels.ops import HeadShape
from headrace.kernels.torch_ops import TorchOps

HEADS = [
    HeadShape(2, 2, 64),
    HeadShape(9, 3, 64),
    HeadShape(4, 2, 128),
    HeadShape(5, 1, 80),
    HeadShape(7, 1, 96),
    HeadShape(16, 1, 256),
]
STEPS = {**MIXES, "no decode between two prefills": [(20, 70), (5, 5), (66, 66)]}
ONE_SIZE = HeadShape(4, 2, 64)


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("mix", STEPS)
def test_mixtures(triton_ops: TritonOps, mix: str, window: int | None) -> None:
    check_attend(triton_ops, torch.float16, STEPS[mix], ONE_SIZE, window)


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_head_shapes(triton_ops: TritonOps, dtype: torch.dtype, heads: HeadShape) -> None:
    check_attend(triton_ops, dtype, [(1, 150), (35, 50), (1, 3)], heads)


def test_every_length(triton_ops: TritonOps) -> None:
    """Around every boundary of tiles, blocks and chunks."""
    lengths = [*range(1, 67, 3), 127, 128, 129, 255, 256, 257, 511, 512, 513, 640, 1000]
    check_attend(triton_ops, torch.float16, [(1, length) for length in lengths], HeadShape(2, 1, 64))


@pytest.mark.parametrize("window", [1, 5, 16, 64, 100, 5000])
def test_windows(triton_ops: TritonOps, window: int) -> None:
    check_attend(triton_ops, torch.float16, [(1, 700), (37, 90), (1, 64), (1, 9)], ONE_SIZE, window)


@pytest.mark.parametrize("block_size", [8, 32, 128])
def test_block_sizes(triton_ops: TritonOps, block_size: int) -> None:
    check_attend(triton_ops, torch.float16, MIXES["mixed"], ONE_SIZE, None, block_size)


def test_one_step_serves_layers_with_different_windows(triton_ops: TritonOps) -> None:
    case = device_case(MIXES["mixed"], ONE_SIZE, torch.float16)
    for window in (None, 9, None, 30):
        expected = TorchOps().attend(case.q, case.cache, batch_on_device(case.batch), 0.2, window)
        assert_near(triton_ops.attend(case.q, case.cache, case.batch, 0.2, window), expected, torch.float16)


def test_blocks_before_the_window_are_not_read(triton_ops: TritonOps) -> None:
    rows = [(1, 70), (3, 64), (1, 200)]
    case = device_case(rows, ONE_SIZE, torch.float16)
    expected = TorchOps().attend(case.q, case.cache, batch_on_device(case.batch), 0.2, 20)
    for table, (new, length) in zip(case.tables, rows, strict=True):
        for block in table[: (length - new - 19) // 16]:
            case.cache.k[block] = case.cache.v[block] = torch.nan
    assert_near(triton_ops.attend(case.q, case.cache, case.batch, 0.2, 20), expected, torch.float16)


def test_poison_in_one_row_stays_in_it(triton_ops: TritonOps) -> None:
    rows = [(1, 40), (1, 38), (6, 30), (6, 29)]
    case = device_case(rows, ONE_SIZE, torch.float16)
    expected = TorchOps().attend(case.q, case.cache, batch_on_device(case.batch), 0.2, None)
    for table in (case.tables[1], case.tables[3]):
        case.cache.k[table[0]] = case.cache.v[table[0]] = torch.nan
    actual = triton_ops.attend(case.q, case.cache, case.batch, 0.2, None)
    healthy = [0, *range(2, 8)]
    assert_near(actual[healthy], expected[healthy], torch.float16)
    assert actual[1].isnan().all()


@pytest.mark.parametrize(
    "rows", [[(1, 300), (1, 40), (1, 77)], [(30, 300), (9, 40), (2, 77)]], ids=["decode", "prefill"]
)
def test_a_row_does_not_depend_on_what_its_mates_hold(triton_ops: TritonOps, rows: list[tuple[int, int]]) -> None:
    """Bit for bit the same beside shorter rows with other contents: the shape of the step alone decides the cut."""
    case, (new, length) = device_case(rows, ONE_SIZE, torch.float16), rows[0]
    together = triton_ops.attend(case.q, case.cache, case.batch, 0.125, None)[:new]
    others = [n for n, _ in rows[1:]]
    batch = make_step_batch([new, *others], [length, *others], case.tables, 16)
    assert torch.equal(triton_ops.attend(case.q, case.cache, batch_on_device(batch), 0.125, None)[:new], together)


def test_large_heads_are_left_to_the_specification(triton_ops: TritonOps) -> None:
    check_attend(triton_ops, torch.float32, [(1, 20), (3, 3)], HeadShape(2, 1, 512))


@pytest.mark.parametrize("rows", [1, 7, 8, 64, 100, 256, 512, 1000])
def test_memory_for_chunks_is_bounded_at_every_number_of_rows(rows: int) -> None:
    """Captured steps have rows of the longest context; the merge takes a power of two."""
    rule = chunk_rule(rows, 8, None, GpuTraits((9, 0), 132))
    batch = make_step_batch([1] * rows, [1] * rows, [[0]] * rows, 16)
    batch.kv_lens[:] = 131_072
    assert rule.most_items(batch) <= max(8192, 16 * rows)
    assert rule.max_splits.bit_count() == 1
