"""The sampling parameters of every running sequence, as columns indexed by its row."""

import numpy as np
from numpy.typing import NDArray

from headrace.engine.request import Request

NO_LOGPROBS = -2


class SamplingColumns:
    """One entry a row, written when a request is admitted and read by all its steps."""

    def __init__(self, num_rows: int, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.temperature = np.zeros(num_rows, np.float32)
        self.top_p = np.ones(num_rows, np.float32)
        self.top_k = np.zeros(num_rows, np.int64)
        self.min_p = np.zeros(num_rows, np.float32)
        self.seed = np.zeros(num_rows, np.uint64)
        self.logprobs = np.full(num_rows, NO_LOGPROBS, np.int64)

    def add(self, request: Request) -> None:
        """Write the parameters of a request to its row; a top_k of the whole vocabulary or more is off (0)."""
        params, row = request.params, request.row
        self.temperature[row] = 0.0 if params.greedy else params.temperature
        self.top_p[row] = params.top_p
        self.top_k[row] = params.top_k if params.top_k < self.vocab_size else 0
        self.min_p[row] = params.min_p
        self.seed[row] = request.seed & 0xFFFF_FFFF_FFFF_FFFF
        self.logprobs[row] = NO_LOGPROBS if params.logprobs is None else params.logprobs

    def truncates(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the rows sample from the most likely tokens only."""
        return (self.top_k[rows] > 0) | (self.top_p[rows] < 1)
