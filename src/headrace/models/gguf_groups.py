"""The 4-bit types of GGUF read as they are: w = q * scale + minimum in groups of 32, nothing rounded but to float32.

Layouts are ggml's (ggml-common.h). Two values share a byte: the low halves of a run of bytes come first.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from gguf.quants import Q4_K
from numpy.typing import NDArray

from headrace.kernels.ops import Int4Groups
from headrace.models.mapped_file import copy_serially

GroupReader = Callable[[NDArray[np.uint8], Int4Groups], None]
"""Takes the bytes of some rows, `[rows, bytes of a row]`, and fills the target."""

GROUP_SIZE: Final = 32


def _read_q4_0(raw: NDArray[np.uint8], target: Int4Groups) -> None:
    """float16 d, 16 bytes: w = d * (q - 8)."""
    blocks = raw.reshape(-1, 18)
    scale = _half(blocks[:, :2])
    _fill(target, _nibbles(blocks[:, 2:], 16), scale, scale * -8)


def _read_q4_1(raw: NDArray[np.uint8], target: Int4Groups) -> None:
    """float16 d, float16 m, 16 bytes: w = d * q + m."""
    blocks = raw.reshape(-1, 20)
    _fill(target, _nibbles(blocks[:, 4:], 16), _half(blocks[:, :2]), _half(blocks[:, 2:4]))


def _read_q4_k(raw: NDArray[np.uint8], target: Int4Groups) -> None:
    """float16 d, float16 dmin, 8 pairs of 6-bit (s, m), 128 bytes: w = d * s * q - dmin * m."""
    blocks = raw.reshape(-1, 144)
    scale, minimum = Q4_K.get_scale_min(blocks[:, 4:16])
    _fill(
        target,
        _nibbles(blocks[:, 16:], 32),
        _half(blocks[:, :2]) * scale,
        _half(blocks[:, 2:4]) * -minimum.astype(np.float32),
    )


def _half(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Two bytes a block as one float."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _nibbles(data: NDArray[np.uint8], run: int) -> NDArray[np.uint8]:
    """Each run of bytes as twice as many values: its low halves, then its high halves."""
    runs = data.reshape(-1, run)
    return np.concatenate((runs & 15, runs >> 4), axis=1)


def _fill(target: Int4Groups, q: NDArray[np.uint8], scale: NDArray[np.float32], minimum: NDArray[np.float32]) -> None:
    copy_serially(torch.from_numpy(q), target.q)
    copy_serially(torch.from_numpy(scale), target.scale)
    copy_serially(torch.from_numpy(minimum), target.minimum)


GROUP_READERS: Final[Mapping[str, GroupReader]] = {"Q4_0": _read_q4_0, "Q4_1": _read_q4_1, "Q4_K": _read_q4_k}
"""How to read each of these types, by its name."""
