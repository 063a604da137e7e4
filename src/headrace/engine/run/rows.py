"""The running sequences as rows that live as long as they run: block tables, and the last token on the device."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.engine.request import Request


class Rows:
    """`block_tables` int32 [num_rows, max_blocks] on the host; `last_tokens` int64 [num_rows] on the device.

    A step whose token the host has not read takes it from `last_tokens`, so that it can be launched without waiting.
    """

    def __init__(self, num_rows: int, max_blocks: int, device: torch.device) -> None:
        self.last_tokens: Tensor = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self._tables: NDArray[np.int32] = np.zeros((num_rows, max_blocks), np.int32)
        self._written: list[list[int]] = [[] for _ in range(num_rows)]

    def sync(self, request: Request) -> None:
        """Bring a row's table up to date with its request's blocks."""
        written, blocks = self._written[request.row], request.blocks
        if written != blocks:
            self._tables[request.row, : len(blocks)] = blocks
            self._written[request.row] = blocks.copy()

    def block_tables(self, rows: NDArray[np.intp], num_blocks: int) -> NDArray[np.int32]:
        """The first `num_blocks` entries of the tables of these rows."""
        return self._tables[rows, :num_blocks]
