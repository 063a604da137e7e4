"""The step's index arrays, against their definition token by token."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.kernels.batch import make_step_batch

rows = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 70)), min_size=1, max_size=12)


@given(rows=rows, block_size=st.sampled_from([8, 16, 32]), seed=st.integers(0, 9))
def test_positions_and_slots(rows: list[tuple[int, int]], block_size: int, seed: int) -> None:
    new, length = [new for new, _ in rows], [new + cached for new, cached in rows]
    free = np.random.default_rng(seed).permutation(600).tolist()
    tables = [[free.pop() for _ in range(-(-n // block_size))] for n in length]
    batch = make_step_batch(new, length, tables, block_size)
    positions = [p for n, total in zip(new, length, strict=True) for p in range(total - n, total)]
    owners = [table for n, table in zip(new, tables, strict=True) for _ in range(n)]
    slots = [t[p // block_size] * block_size + p % block_size for p, t in zip(positions, owners, strict=True)]
    assert batch.positions.tolist() == positions
    assert batch.slots.tolist() == slots
    assert batch.query_start.tolist() == [0, *np.cumsum(new)]
    assert batch.context_lens.tolist() == batch.kv_lens.tolist() == length
    assert batch.query_lens.tolist() == new


def test_tables_are_padded_with_zero() -> None:
    assert make_step_batch([1, 1], [3, 17], [[5], [2, 7, 9]], 8).block_tables.tolist() == [[5, 0, 0], [2, 7, 9]]


def test_an_array_of_tables_is_taken_as_it_is() -> None:
    tables = np.array([[5, 0, 0], [2, 7, 9]], dtype=np.int32)
    assert make_step_batch([1, 1], [3, 17], tables, 8).block_tables.tolist() == tables.tolist()


def test_dtypes_and_device() -> None:
    batch = make_step_batch([2], [5], [[3]], 8, torch.device("cpu"))
    assert {batch.positions.dtype, batch.slots.dtype} == {torch.int64}
    assert {batch.query_start.dtype, batch.context_lens.dtype, batch.block_tables.dtype} == {torch.int32}
    assert {batch.query_lens.dtype, batch.kv_lens.dtype} == {np.dtype(np.int32)}
