"""The running sequences' rows in one piece of device memory, and the changes to it that are yet to be uploaded."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.engine.request import Request

Pairs = NDArray[np.int32]
"""[N, 2]: a place in the rows' memory, and the value to be written there."""


class DeviceRows:
    """One int32 tensor, `memory`, and views of it, a row for each running sequence.

    `block_tables` [num_rows, max_blocks], `params` [num_rows, num_params] (how it samples) and `last_tokens`
    [num_rows], which the sampling writes. A step uploads what has changed, as pairs.
    """

    def __init__(self, num_rows: int, max_blocks: int, num_params: int, device: torch.device) -> None:
        sizes = [num_rows * max_blocks, num_rows * num_params, num_rows]
        self.memory: Tensor = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        tables, params, self.last_tokens = torch.split(self.memory, sizes)
        self.block_tables = tables.view(num_rows, max_blocks)
        self.params = params.view(num_rows, num_params)
        self._params_at = sizes[0]
        self._written = [0] * num_rows
        self._places: list[int] = []
        self._values: list[int] = []

    def admit(self, request: Request, params: list[int]) -> None:
        """Give a row to a request that samples by `params`; its blocks are yet to be written."""
        self._write(self._params_at + request.row * len(params), params)
        self._written[request.row] = 0

    def extend(self, request: Request) -> None:
        """Write those blocks of a request that its row does not have yet; all of them if one was replaced."""
        row, blocks = request.row, request.blocks
        known = 0 if request.block_replaced else self._written[row]
        request.block_replaced = False
        if known != len(blocks):
            self._write(row * self.block_tables.shape[1] + known, blocks[known:])
            self._written[row] = len(blocks)

    def forget_changes(self) -> None:
        """Drop what was written since: the rows will be given away anew."""
        self._places, self._values = [], []

    def take_changes(self) -> Pairs:
        """What was written since the last call, each place once."""
        pairs = np.empty((len(self._places), 2), np.int32)
        if self._places:
            pairs[:, 0], pairs[:, 1] = self._places, self._values
            self.forget_changes()
        return pairs

    def _write(self, place: int, values: list[int]) -> None:
        self._places += range(place, place + len(values))
        self._values += values
