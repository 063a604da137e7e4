"""From the scheduler's lists to one `StepBatch`: numpy on the host, one upload, views on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from headrace.kernels.ops import StepBatch


def make_step_batch(
    query_lens: ArrayLike,
    kv_lens: ArrayLike,
    block_tables: Sequence[Sequence[int]] | NDArray[np.int32],
    block_size: int,
    device: torch.device | str = "cpu",
) -> StepBatch:
    """A step in which row r adds `query_lens[r]` tokens, after which `kv_lens[r]` are in the cache.

    `block_tables[r]` lists the blocks of row r in order, at least enough for `kv_lens[r]` tokens; an array must be
    padded with 0 already.
    """
    query, context = np.asarray(query_lens, dtype=np.int32), np.asarray(kv_lens, dtype=np.int32)
    tables = block_tables if isinstance(block_tables, np.ndarray) else _pad(block_tables)
    start = np.concatenate((np.zeros(1, np.int32), query.cumsum(dtype=np.int32)))
    row = np.repeat(np.arange(len(query)), query)
    positions = np.arange(start[-1]) + (context - query - start[:-1])[row]
    slots = tables[row, positions // block_size] * np.int64(block_size) + positions % block_size
    on_device = _upload((positions, slots, start, context, tables), torch.device(device))
    positions_on, slots_on, start_on, context_on, tables_on = on_device
    return StepBatch(positions_on, slots_on, start_on, context_on, tables_on, query, context)


def _pad(lists: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Lists of different lengths as one array, 0 after each one's end."""
    padded = np.zeros((len(lists), max(map(len, lists), default=0)), dtype=np.int32)
    for row, blocks in zip(padded, lists, strict=True):
        row[: len(blocks)] = blocks
    return padded


def _upload(parts: Sequence[NDArray[np.int64] | NDArray[np.int32]], device: torch.device) -> list[Tensor]:
    """One copy to the device for all of them. The int64 arrays must come first, so that every view is aligned."""
    packed = torch.from_numpy(np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])).to(device)
    pieces = torch.split(packed, [part.nbytes for part in parts])
    return [
        piece.view(torch.int64 if part.dtype == np.int64 else torch.int32).view(part.shape)
        for piece, part in zip(pieces, parts, strict=True)
    ]
