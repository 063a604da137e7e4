"""Log probabilities from raw logits, as tensors on the device and as `Logprob`s on the host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from headrace.core.outputs import Logprob, TokenLogprobs
from headrace.engine.sample.transfer import download
from headrace.kernels.gpu.row_params import MOST_DESCRIBED
from headrace.planner.step_sizes import EDITED_ROWS

CHUNK_ROWS: Final = EDITED_ROWS
"""Rows whose logits are float32 at a time."""

_SORTED_ROWS = 4
"""Of them those that are sorted at a time, which takes several copies where the whole vocabulary is asked for."""


@dataclass(frozen=True, slots=True)
class LogprobTensors:
    """For N positions: the chosen tokens with logprob and rank [N], and the `top` most likely ones [N, K]."""

    tokens: Tensor
    chosen: Tensor
    ranks: Tensor
    top_tokens: Tensor
    top: Tensor

    def on_host(self) -> "LogprobTensors":
        """Copies in host memory, which may be read once the device has come that far."""
        return LogprobTensors(
            download(self.tokens), download(self.chosen), download(self.ranks), download(self.top_tokens),
            download(self.top),
        )  # fmt: skip

    def read(self, counts: Sequence[int]) -> list[TokenLogprobs]:
        """Position by position: the chosen token, then the `counts[i]` most likely ones (-1: all)."""
        columns = (self.tokens, self.chosen, self.ranks, self.top_tokens, self.top)
        rows = zip(counts, *(column.tolist() for column in columns), strict=True)
        return [_as_dict(*row) for row in rows]


def compute_logprobs(logits: Tensor, tokens: Tensor, count: int) -> LogprobTensors:
    """From raw logits [N, V] and the tokens [N] chosen; `count` most likely ones a position, -1 for all."""
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, tokens[:, None])
    ranks = (logprobs > chosen).sum(-1) + 1
    top, top_tokens = _most_likely(logprobs, logprobs.shape[-1] if count == -1 else count)
    return LogprobTensors(tokens, chosen.squeeze(-1), ranks, top_tokens, top)


def _most_likely(logprobs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of each row and their places, [N, count] both."""
    num_rows, vocab_size = logprobs.shape
    values = logprobs.new_empty(num_rows, count)
    places = torch.empty_like(values, dtype=torch.int64)
    step = _SORTED_ROWS if count == vocab_size else max(1, num_rows)
    for parts in zip(logprobs.split(step), values.split(step), places.split(step), strict=True):
        torch.topk(parts[0], count, dim=-1, out=parts[1:])
    return values, places


@dataclass(frozen=True, slots=True)
class StepLogprobs:
    """Of those rows of a step that asked for them: which these are, and how many each wants (-1: all)."""

    tensors: LogprobTensors
    rows: Sequence[int]
    counts: Sequence[int]

    def read(self) -> dict[int, TokenLogprobs]:
        """By row of the step."""
        return dict(zip(self.rows, self.tensors.read(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class DescribedRows:
    """As `StepLogprobs`, of rows that the sampling kernels have described, [S, DESCRIPTION_FIELDS] on the host."""

    descriptions: Tensor
    rows: Sequence[int]
    counts: Sequence[int]

    def read(self) -> dict[int, TokenLogprobs]:
        """By row of the step."""
        own = self.descriptions[list(self.rows)]
        tokens, chosen, ranks = own[:, :3].unbind(1)
        top_tokens, top = own[:, 3:].split(MOST_DESCRIBED, 1)
        floats = (chosen.contiguous().view(torch.float32), top.contiguous().view(torch.float32))
        tensors = LogprobTensors(tokens, floats[0], ranks, top_tokens, floats[1])
        return dict(zip(self.rows, tensors.read(self.counts), strict=True))


def largest(counts: Sequence[int]) -> int:
    """The count that covers all of them, -1 being the whole vocabulary."""
    return -1 if -1 in counts else max(counts)


def _as_dict(
    count: int, token: int, logprob: float, rank: int, top_tokens: list[int], top: list[float]
) -> TokenLogprobs:
    found = {token: Logprob(logprob, rank)}
    limit = len(top) if count == -1 else count
    for place, (other, value) in enumerate(zip(top_tokens[:limit], top[:limit], strict=True), start=1):
        found.setdefault(other, Logprob(value, place))
    return found
