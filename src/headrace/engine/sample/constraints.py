"""What forbids or favours single tokens: logit_bias, allowed_token_ids, min_tokens and bad_words."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from headrace.engine.request import Request
from headrace.engine.sample.transfer import upload
from headrace.engine.sched.plan import PlannedRow

_NEVER = float("-inf")


class Constraints:
    """Edits the logits of the rows that ask for something, without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._allowed_of_row: dict[int, Tensor] = {}

    def add(self, request: Request) -> None:
        """Keep what an admitted request allows on the device."""
        allowed = request.params.allowed_token_ids
        if allowed is None:
            self._allowed_of_row.pop(request.row, None)
        else:
            self._allowed_of_row[request.row] = upload(allowed, torch.int64, self._device)

    def apply(self, logits: Tensor, planned: Sequence[PlannedRow]) -> None:
        """Change the logits [R, V] of the rows that are constrained, in place."""
        biased: list[tuple[int, int]] = []
        biases: list[float] = []
        forbidden: list[tuple[int, int]] = []
        for i, row in enumerate(planned):
            request = row.request
            bias = request.params.logit_bias or {}
            biased += [(i, token) for token in bias]
            biases += bias.values()
            forbidden += [(i, token) for token in _forbidden(request, row.known - request.num_prompt)]
        if biased:
            logits[self._places(biased)] += upload(biases, torch.float32, self._device)
        for i, row in enumerate(planned):
            if row.request.params.allowed_token_ids is not None:
                _allow_only(logits[i], self._allowed_of_row[row.request.row])
        if forbidden:
            rows, tokens = self._places(forbidden)
            logits.index_put_((rows, tokens), logits.new_full((), _NEVER))

    def _places(self, places: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Rows and tokens, as an index."""
        rows, tokens = upload(places, torch.int64, self._device).unbind(1)
        return rows, tokens


def _allow_only(row: Tensor, allowed: Tensor) -> None:
    kept = row.index_select(0, allowed)
    row.fill_(_NEVER).index_copy_(0, allowed, kept)


def _forbidden(request: Request, num_output: int) -> Iterator[int]:
    """The token ids that may not come next, after `num_output` tokens."""
    if num_output < request.params.min_tokens:
        yield from request.stop_token_ids
        yield from request.eos_token_ids
    if not request.bad_words_token_ids:
        return
    output = request.tokens[request.num_prompt :]
    for word in request.bad_words_token_ids:
        begun = len(word) - 1
        if begun == 0 or output[-begun:] == word[:-1]:
            yield word[-1]
