"""What one upload holds and where: a header, a column for each fact about a row, then pairs and tokens."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headrace.kernels.gpu.prepare_step import HEADER_FIELDS, StepRows

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SampleRows:
    """Those of S rows that make a token: its place among the step's tokens, its row (-1: padding), its position."""

    at: Tensor
    row_ids: Tensor
    positions: Tensor


class Layout:
    """For at most `max_rows` rows and as many changes as `max_pairs`; int32 throughout.

    The columns lie at fixed places, so that graphs can refer to them.
    """

    def __init__(self, max_rows: int, max_tokens: int, max_pairs: int) -> None:
        self.max_rows = max_rows
        self.max_pairs = max_pairs
        column = max_rows + HEADER_FIELDS  # one more than rows, and aligned
        self._row_ids, self._query_start, self._context_lens, self._at, self._sampled, self._positions = (
            HEADER_FIELDS + column * index for index in range(6)
        )
        self.pairs_at = HEADER_FIELDS + 6 * column
        self.size = self.pairs_at + 2 * max_pairs + max_tokens

    def rows(self, upload: Tensor, count: int) -> StepRows:
        """The first `count` rows' columns."""
        return StepRows(
            upload[self._row_ids :][:count],
            upload[self._query_start :][: count + 1],
            upload[self._context_lens :][:count],
        )

    def samples(self, upload: Tensor, count: int) -> SampleRows:
        """The first `count` sampling rows' columns."""
        return SampleRows(*(upload[start:][:count] for start in (self._at, self._sampled, self._positions)))

    def write_rows(self, buffer: Ints, row_ids: Ints, query_start: Ints, context_lens: Ints) -> None:
        """The step's R rows; those that pad it add no token and have no context."""
        count, most = len(row_ids), self.max_rows
        buffer[self._row_ids :][:count] = row_ids
        buffer[self._row_ids :][count:most] = 0
        buffer[self._query_start :][: count + 1] = query_start
        buffer[self._query_start :][count + 1 : most + 1] = query_start[-1]
        buffer[self._context_lens :][:count] = context_lens
        buffer[self._context_lens :][count:most] = 0

    def write_samples(self, buffer: Ints, at: Ints, row_ids: Ints, positions: Ints) -> None:
        """The step's S sampling rows; those that pad it have the row -1."""
        count, most = len(at), self.max_rows
        buffer[self._at :][:count] = at
        buffer[self._at :][count:most] = 0
        buffer[self._sampled :][:count] = row_ids
        buffer[self._sampled :][count:most] = -1
        buffer[self._positions :][:count] = positions
