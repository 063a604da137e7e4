"""Sampling on a GPU: by the kernels alone where they suffice, and around them what few requests ask for.

Nothing here waits for the device, which may be a step ahead of what the host has read: penalties are counted on the
device, and `PlannedRow.known` says how many tokens there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headrace.core.outputs import TokenLogprobs
from headrace.core.sampling_params import SamplingParams
from headrace.engine.request import Request
from headrace.engine.sample.constraints import Constraints
from headrace.engine.sample.logprobs import CHUNK_ROWS, StepLogprobs, compute_logprobs, largest
from headrace.engine.sample.penalties import Penalties
from headrace.engine.sample.transfer import upload
from headrace.engine.sched.plan import PlannedRow
from headrace.kernels.gpu.row_params import PARAM_FIELDS, pack_row_params
from headrace.kernels.gpu.sampling import sample_launches
from headrace.kernels.gpu.sampling_workspace import MANY_ROWS, empty_workspace

_ALWAYS = 1 << 62


@dataclass(frozen=True, slots=True)
class Special:
    """What a step with special rows gives beside its tokens."""

    logprobs: Sequence[StepLogprobs] = ()

    def read_logprobs(self) -> dict[int, TokenLogprobs]:
        """By index of the row in the step, for those that asked; once the device has come that far."""
        return {row: entry for part in self.logprobs for row, entry in part.read().items()}


class DeviceSampler:
    """Samples for up to `num_rows` running sequences, one step after the other.

    Rows whose parameters the kernels know are sampled by `sample`, which may be captured in a CUDA graph. A step with
    any other row goes through `sample_special`.
    """

    def __init__(self, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._vocab_size = vocab_size
        self._workspace = empty_workspace(num_rows, vocab_size, device)
        self._penalties = Penalties(num_rows, vocab_size, device)
        self._constraints = Constraints(device)
        self._special_below = [0] * num_rows
        if device.type == "cuda":
            self._build_kernels()

    def add(self, request: Request) -> None:
        """Keep what a request that has just got its row needs beyond `params_of`."""
        self._special_below[request.row] = _special_below(request)
        self._penalties.add(request)
        self._constraints.add(request)

    def params_of(self, request: Request) -> list[int]:
        """The row of a request, PARAM_FIELDS values, as the kernels want it."""
        params = request.params
        if params.greedy:
            return pack_row_params(0.0, 0, 1.0, 0.0, request.seed)
        top_k = params.top_k if params.top_k < self._vocab_size else 0
        return pack_row_params(params.temperature, top_k, params.top_p, params.min_p, request.seed)

    def is_special(self, planned: Sequence[PlannedRow]) -> bool:
        """Whether any row needs more than the kernels do."""
        return any(row.known < self._special_below[row.request.row] for row in planned)

    def sample(
        self, logits: Tensor, rows: Tensor, positions: Tensor, params: Tensor, tokens: Tensor, last_tokens: Tensor
    ) -> None:
        """One token a row; the arguments are those of `sample_launches`."""
        for launch in sample_launches(logits, rows, positions, params, tokens, last_tokens, self._workspace):
            launch.run()

    def sample_special(
        self,
        logits: Tensor,
        planned: Sequence[PlannedRow],
        rows: Tensor,
        positions: Tensor,
        params: Tensor,
        tokens: Tensor,
        last_tokens: Tensor,
    ) -> Special:
        """As `sample`, of the rows `planned`, with everything that a request can ask for; `logits` stay as they are.

        CHUNK_ROWS of them are edited at a time.
        """
        self.sample(logits, rows, positions, params, tokens, last_tokens)
        places = [i for i, row in enumerate(planned) if row.known < self._special_below[row.request.row]]
        chunks = (places[begin : begin + CHUNK_ROWS] for begin in range(0, len(places), CHUNK_ROWS))
        parts = [
            self._sample_edited(logits, planned, part, rows, positions, params, tokens, last_tokens) for part in chunks
        ]
        return Special([part for part in parts if part is not None])

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
        """Sample the special rows at `places` of the step anew, and count and describe their tokens."""
        index, special = upload(places, torch.int64, self._device), [planned[i] for i in places]
        raw = logits.index_select(0, index).float()
        chosen = torch.empty_like(index, dtype=torch.int32)
        own = (rows.index_select(0, index), positions.index_select(0, index))
        self.sample(self._edited(raw, special), *own, params, chosen, last_tokens)
        tokens.index_copy_(0, index, chosen)
        requests = [row.request for row in special]
        self._penalties.count(chosen, requests)
        return self._logprobs(raw, chosen, requests, places)

    def _edited(self, raw: Tensor, special: Sequence[PlannedRow]) -> Tensor:
        """The logits with what the requests ask for."""
        edited = raw.clone()
        self._constraints.apply(edited, special)
        self._penalties.apply(edited, [row.request for row in special])
        return edited

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
    return _ALWAYS if _needs_edits(request.params) or request.bad_words_token_ids else _end_of_min_tokens(request)


def _needs_edits(params: SamplingParams) -> bool:
    asked = (params.logit_bias, params.allowed_token_ids, params.logprobs)
    return params.has_penalties or any(value is not None for value in asked)


def _end_of_min_tokens(request: Request) -> int:
    return request.num_prompt + request.params.min_tokens if request.params.min_tokens else 0
