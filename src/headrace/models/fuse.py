"""From tensors in a checkpoint to stacked weights in memory, straight into their final place, a few rows at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from headrace.kernels.ops import Int4Groups
from headrace.models.checkpoint import Checkpoint

_CHUNK_ELEMENTS = 1 << 17
"""What is converted at once: half a megabyte of float32 stays in the cache between the passes over it."""
_GPU_CHUNK_ELEMENTS = 1 << 24
"""The same on a GPU, where each piece is a transfer or a launch."""

GROUP_SIZE = 32
"""Weights that share a scale when we quantize to 4 bits ourselves; also that of GGUF's Q4_0 and Q4_1."""


def stacked(checkpoint: Checkpoint, names: Sequence[str], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The named tensors as one, stacked along their rows."""
    shapes = [checkpoint.info(name).shape for name in names]
    target = torch.empty((sum(shape[0] for shape in shapes), *shapes[0][1:]), dtype=dtype, device=device)
    start = 0
    for name, shape in zip(names, shapes, strict=True):
        part = target[start : start + shape[0]]
        for first, last in _chunks(part):
            checkpoint.copy_rows(name, first, part[first:last])
        start += shape[0]
    return target


def stacked_groups(checkpoint: Checkpoint, names: Sequence[str], device: torch.device) -> Int4Groups:
    """The named 4-bit tensors as one, in the file's own bits."""
    rows = [checkpoint.info(name).shape[0] for name in names]
    target = _empty_groups(sum(rows), checkpoint.info(names[0]).shape[1], device)
    start = 0
    for name, count in zip(names, rows, strict=True):
        part = _rows_of(target, start, start + count)
        for first, last in _chunks(part.q):
            checkpoint.copy_groups(name, first, _rows_of(part, first, last))
        start += count
    return target


def rounded_groups(weight: Tensor) -> Int4Groups:
    """Round a weight `[out, in]` to the nearest of 16 evenly spaced values between each group's extremes."""
    target = _empty_groups(weight.shape[0], weight.shape[1], weight.device)
    for first, last in _chunks(weight):
        _round_rows(weight[first:last], _rows_of(target, first, last))
    return target


def _round_rows(weight: Tensor, target: Int4Groups) -> None:
    groups = weight.float().view(len(weight), -1, GROUP_SIZE)
    low, high = groups.aminmax(dim=-1)
    scale = (high - low) / 15
    steps = (groups - low.unsqueeze(-1)) / scale.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(-1)
    target.q.copy_(steps.round_().clamp_(0, 15).flatten(1))
    target.scale.copy_(scale)
    target.minimum.copy_(low)


def _empty_groups(rows: int, columns: int, device: torch.device) -> Int4Groups:
    q = torch.empty(rows, columns, dtype=torch.uint8, device=device)
    scale = torch.empty(rows, columns // GROUP_SIZE, device=device)
    return Int4Groups(q, scale, torch.empty_like(scale))


def _rows_of(groups: Int4Groups, first: int, last: int) -> Int4Groups:
    return Int4Groups(groups.q[first:last], groups.scale[first:last], groups.minimum[first:last])


def _chunks(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about as many elements as are converted at once."""
    rows = len(tensor)
    chunk = _CHUNK_ELEMENTS if tensor.device.type == "cpu" else _GPU_CHUNK_ELEMENTS
    step = max(1, chunk * rows // max(1, tensor.numel()))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)
