"""Sampling on a GPU: by the kernels alone where they suffice, and around them what few requests ask for.

The kernels know of penalties and of logprobs. Nothing here waits for the device, which may be a step ahead of what the
host has read: tokens are counted on the device, and `PlannedRow.known` says how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.core.outputs import TokenLogprobs
from headrace.engine.request import Request
from headrace.engine.sample.constraints import Constraints
from headrace.engine.sample.logprobs import CHUNK_ROWS, DescribedRows, StepLogprobs, compute_logprobs, largest
from headrace.engine.sample.seen_tokens import SeenTokens
from headrace.engine.sample.transfer import download, upload
from headrace.engine.sched.plan import PlannedRow
from headrace.kernels.gpu.row_params import MOST_DESCRIBED, NO_DESCRIPTION, PARAM_FIELDS, RowParams
from headrace.kernels.gpu.sampling import sample_launches
from headrace.kernels.gpu.sampling_workspace import MANY_ROWS, empty_workspace

_ALWAYS = 1 << 62


@dataclass(frozen=True, slots=True)
class StepDetails:
    """What a step gives beside its tokens: the logprobs of those rows that asked for them."""

    parts: Sequence[StepLogprobs | DescribedRows] = ()

    def read_logprobs(self) -> dict[int, TokenLogprobs]:
        """By index of the row in the step; once the device has come that far."""
        return {row: entry for part in self.parts for row, entry in part.read().items()}


class DeviceSampler:
    """Samples for up to `num_rows` running sequences, one step after the other.

    Rows whose parameters the kernels know are sampled by `sample`, which may be captured in a CUDA graph. A step with
    any other row goes through `sample_special`.
    """

    def __init__(self, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._vocab_size = vocab_size
        self._workspace = empty_workspace(num_rows, vocab_size, device)
        self._seen = SeenTokens(num_rows, vocab_size, device)
        self._constraints = Constraints(device)
        self._special_below = np.zeros(num_rows, np.int64)
        self._described = np.full(num_rows, NO_DESCRIPTION, np.int64)
        if device.type == "cuda":
            self._build_kernels()

    def add(self, request: Request) -> None:
        """Keep what a request that has just got its row needs beyond `params_of`."""
        self._special_below[request.row] = _special_below(request)
        self._described[request.row] = self._num_described(request)
        self._seen.add(request)
        self._constraints.add(request)

    def params_of(self, request: Request) -> list[int]:
        """The row of a request, PARAM_FIELDS values, as the kernels want it."""
        params = request.params
        penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        described = self._num_described(request)
        if params.greedy:
            return RowParams(0.0, 0, 1.0, 0.0, request.seed, *penalties, described).pack()
        top_k = params.top_k if params.top_k < self._vocab_size else 0
        drawn = (params.temperature, top_k, params.top_p, params.min_p)
        return RowParams(*drawn, request.seed, *penalties, described).pack()

    def is_special(self, rows: NDArray[np.intp], known: NDArray[np.int32]) -> bool:
        """Whether any of these rows, which have so many tokens, needs more than the kernels do."""
        return bool((known < self._special_below[rows]).any())

    def sample(
        self, logits: Tensor, rows: Tensor, positions: Tensor, params: Tensor, tokens: Tensor, last_tokens: Tensor
    ) -> None:
        """One token a row; the arguments are those of `sample_launches`."""
        seen, workspace = self._seen.memory, self._workspace
        for launch in sample_launches(logits, rows, positions, params, seen, tokens, last_tokens, workspace):
            launch.run()

    def details(self, rows: NDArray[np.intp]) -> StepDetails | None:
        """What `sample` has told of the tokens of these rows, on its way to the host; None if none of them asked."""
        part = self._descriptions(self._described[rows])
        return None if part is None else StepDetails([part])

    def _descriptions(self, counts: NDArray[np.int64]) -> DescribedRows | None:
        """Of a step's rows, with so many of the likeliest tokens each."""
        wanted = np.flatnonzero(counts != NO_DESCRIPTION)
        if not len(wanted):
            return None
        descriptions = download(self._workspace.descriptions[: len(counts)].clone())  # the next step's come there too
        return DescribedRows(descriptions, wanted.tolist(), counts[wanted].tolist())

    def _num_described(self, request: Request) -> int:
        """How many of the likeliest tokens the kernels tell of beside the request's own."""
        return min(request.params.logprobs or 0, self._vocab_size) if _is_described(request) else NO_DESCRIPTION

    def sample_special(
        self,
        logits: Tensor,
        planned: Sequence[PlannedRow],
        rows: Tensor,
        positions: Tensor,
        params: Tensor,
        tokens: Tensor,
        last_tokens: Tensor,
    ) -> StepDetails:
        """As `sample`, of the rows `planned`, with everything that a request can ask for; `logits` stay as they are.

        CHUNK_ROWS of them are edited at a time.
        """
        places = [i for i, row in enumerate(planned) if row.known < self._special_below[row.request.row]]
        others = rows.index_fill(0, upload(places, torch.int64, self._device), -1)  # no token is counted twice
        self.sample(logits, others, positions, params, tokens, last_tokens)
        counts = self._described[[row.request.row for row in planned]]
        counts[places] = NO_DESCRIPTION
        described = self._descriptions(counts)
        chunks = (places[begin : begin + CHUNK_ROWS] for begin in range(0, len(places), CHUNK_ROWS))
        parts = [
            self._sample_edited(logits, planned, part, rows, positions, params, tokens, last_tokens) for part in chunks
        ]
        return StepDetails([part for part in (described, *parts) if part is not None])

    def _sample_edited(
        self,
        logits: Tensor,
        planned: Sequence[PlannedRow],
        places: Sequence[int],
        rows: Tensor,
        positions: Tensor,
        params: Tensor,
        tokens: Tensor,
        last_tokens: Tensor,
    ) -> StepLogprobs | None:
        """Sample the special rows at `places` of the step, and describe their tokens."""
        index, special = upload(places, torch.int64, self._device), [planned[i] for i in places]
        raw = logits.index_select(0, index).float()
        edited, chosen = raw.clone(), torch.empty_like(index, dtype=torch.int32)
        self._constraints.apply(edited, special)
        own = (rows.index_select(0, index), positions.index_select(0, index))
        self.sample(edited, *own, params, chosen, last_tokens)
        tokens.index_copy_(0, index, chosen)
        return self._logprobs(raw, chosen, [row.request for row in special], places)

    def _logprobs(
        self, raw: Tensor, chosen: Tensor, requests: Sequence[Request], places: Sequence[int]
    ) -> StepLogprobs | None:
        """Of those of the special rows that ask for logprobs, on their way to the host."""
        counts = {i: request.params.logprobs for i, request in enumerate(requests)}
        wanted = {i: count for i, count in counts.items() if count is not None}
        if not wanted:
            return None
        index, numbers = upload(list(wanted), torch.int64, self._device), list(wanted.values())
        tokens = chosen.index_select(0, index).long()
        tensors = compute_logprobs(raw.index_select(0, index), tokens, largest(numbers))
        return StepLogprobs(tensors.on_host(), [places[i] for i in wanted], numbers)

    def _build_kernels(self) -> None:
        """Have the kernels for edited logits there before the first request that needs them."""
        params = torch.zeros(1, PARAM_FIELDS, dtype=torch.int32, device=self._device)
        for count in (1, MANY_ROWS):
            logits = torch.empty(count, self._vocab_size, device=self._device)
            padding = torch.full((count,), -1, dtype=torch.int32, device=self._device)
            self.sample(logits, padding, padding, params, padding, padding)


def _special_below(request: Request) -> int:
    """While a sequence has fewer tokens than this, the kernels alone do not suffice for it."""
    params = request.params
    edited = params.logit_bias is not None or params.allowed_token_ids is not None or request.bad_words_token_ids
    if edited or (params.logprobs is not None and not _is_described(request)):
        return _ALWAYS
    return request.num_prompt + params.min_tokens if params.min_tokens else 0


def _is_described(request: Request) -> bool:
    """Whether it asks for logprobs, and for no more of them than the kernels tell."""
    return request.params.logprobs is not None and 0 <= request.params.logprobs <= MOST_DESCRIBED
