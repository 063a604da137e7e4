"""From the logits of a step to its tokens: each feature edits the logits in turn, then one token a row is taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.core.outputs import TokenLogprobs
from headrace.engine.request import Request
from headrace.engine.sample.columns import NO_LOGPROBS, SamplingColumns
from headrace.engine.sample.constraints import Constraints
from headrace.engine.sample.draw import DrawParams, draw_truncated, draw_whole, scale
from headrace.engine.sample.logprobs import StepLogprobs, compute_logprobs, largest
from headrace.engine.sample.noise import uniforms
from headrace.engine.sample.penalties import Penalties
from headrace.engine.sched.plan import PlannedRow


@dataclass(frozen=True, slots=True)
class Sampled:
    """The tokens [R] of a step, on the device, and the logprobs of those rows that asked for them."""

    tokens: Tensor
    logprobs: StepLogprobs | None = None

    def read(self) -> tuple[list[int], dict[int, TokenLogprobs]]:
        """Wait for the device: the tokens, and the logprobs by index of the row."""
        tokens: list[int] = self.tokens.tolist()
        return tokens, {} if self.logprobs is None else self.logprobs.read()


class Sampler:
    """Holds what sampling needs to know of each running sequence, by row."""

    def __init__(self, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._columns = SamplingColumns(num_rows, vocab_size)
        self._penalties = Penalties(num_rows, vocab_size, device)
        self._constraints = Constraints(device)

    def add(self, request: Request) -> None:
        """Take over the parameters of a request that has just got its row."""
        self._columns.add(request)
        self._penalties.add(request)
        self._constraints.add(request)

    def sample(self, logits: Tensor, planned: Sequence[PlannedRow]) -> Sampled:
        """The next token of each row; `logits` float32 [R, V] are changed in place."""
        requests = [row.request for row in planned]
        rows = np.fromiter((request.row for request in requests), np.int64, len(requests))
        wanted = np.flatnonzero(self._columns.logprobs[rows] != NO_LOGPROBS)
        raw = logits[torch.from_numpy(wanted).to(self._device)] if len(wanted) else None
        self._constraints.apply(logits, planned)
        self._penalties.apply(logits, requests)
        tokens = self._choose(logits, rows, np.fromiter((row.known for row in planned), np.int64, len(planned)))
        self._penalties.count(tokens, requests)
        if raw is None:
            return Sampled(tokens)
        counts = self._columns.logprobs[rows[wanted]].tolist()
        chosen = tokens[torch.from_numpy(wanted).to(self._device)]
        return Sampled(tokens, StepLogprobs(compute_logprobs(raw, chosen, largest(counts)), wanted.tolist(), counts))

    def _choose(self, logits: Tensor, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> Tensor:
        """The most likely token of greedy rows, a drawn one of the others."""
        random = self._columns.temperature[rows] > 0
        tokens = logits.new_empty(len(rows), dtype=torch.int64) if random.all() else logits.argmax(-1)
        truncated = self._columns.truncates(rows)
        for kind, truncate in ((random & ~truncated, False), (random & truncated, True)):
            index = np.flatnonzero(kind)
            if len(index):
                at = torch.from_numpy(index).to(self._device)
                params = self._draw_params(rows[index], positions[index])
                x = scale(logits if len(index) == len(rows) else logits[at], params)
                tokens[at] = draw_truncated(x, params) if truncate else draw_whole(x, params.uniform)
        return tokens

    def _draw_params(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> DrawParams:
        columns = self._columns
        uniform = uniforms(columns.seed[rows], positions)
        parts = (columns.temperature[rows], columns.top_k[rows], columns.top_p[rows], columns.min_p[rows], uniform)
        return DrawParams(*(torch.from_numpy(part).to(self._device)[:, None] for part in parts))
