"""What is told of a step and where: a header, a column for each fact about a row, then tokens and changes of rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headrace.kernels.gpu.exchange import HEADER_FIELDS
from headrace.kernels.gpu.prepare_step import StepRows

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SampleRows:
    """Those of S rows that make a token: its place among the step's tokens, its row (-1: padding), its position."""

    at: Tensor
    row_ids: Tensor
    positions: Tensor


class Layout:
    """Of a step of at most `max_rows` and `max_tokens`: columns at fixed places, so that graphs can refer to them.

    On the device the step's tokens follow the `columns` values; in a message, changes of rows follow those.
    """

    def __init__(self, max_rows: int, max_tokens: int, max_pairs: int) -> None:
        self.max_rows = max_rows
        self.max_pairs = max_pairs
        column = max_rows + HEADER_FIELDS  # one more than rows, and aligned
        self._row_ids, self._query_start, self._context_lens, self._at, self._sampled, self._positions = (
            HEADER_FIELDS + column * index for index in range(6)
        )
        self.columns = HEADER_FIELDS + 6 * column
        self.step_size = self.columns + max_tokens
        self.message_size = self.step_size + 2 * max_pairs

    def rows(self, step: Tensor, count: int) -> StepRows:
        """The first `count` rows' columns."""
        return StepRows(
            step[self._row_ids :][:count],
            step[self._query_start :][: count + 1],
            step[self._context_lens :][:count],
        )

    def samples(self, step: Tensor, count: int) -> SampleRows:
        """The first `count` sampling rows' columns."""
        return SampleRows(*(step[start:][:count] for start in (self._at, self._sampled, self._positions)))

    def tokens(self, step: Tensor) -> Tensor:
        """The step's tokens, as far as the host knows them."""
        return step[self.columns :]

    def write_rows(self, message: Ints, row_ids: NDArray[np.integer], query_start: Ints, context_lens: Ints) -> None:
        """The step's R rows; those that pad it add no token and have no context."""
        count, most = len(row_ids), self.max_rows
        message[self._row_ids :][:count] = row_ids
        message[self._row_ids :][count:most] = 0
        message[self._query_start :][: count + 1] = query_start
        message[self._query_start :][count + 1 : most + 1] = query_start[-1]
        message[self._context_lens :][:count] = context_lens
        message[self._context_lens :][count:most] = 0

    def write_samples(self, message: Ints, at: Ints, row_ids: NDArray[np.integer], positions: Ints) -> None:
        """The step's S sampling rows; those that pad it have the row -1."""
        count, most = len(at), self.max_rows
        message[self._at :][:count] = at
        message[self._at :][count:most] = 0
        message[self._sampled :][:count] = row_ids
        message[self._sampled :][count:most] = -1
        message[self._positions :][:count] = positions
