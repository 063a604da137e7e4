"""What forbids or favours single tokens: logit_bias, allowed_token_ids, min_tokens and bad_words."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from headrace.engine.request import Request
from headrace.engine.sched.plan import PlannedRow

_NEVER = float("-inf")


class Constraints:
    """Edits logits row by row; only the rows that ask for something cost anything."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._allowed_of_row: dict[int, Tensor] = {}

    def add(self, request: Request) -> None:
        """Keep what an admitted request allows on the device."""
        allowed = request.params.allowed_token_ids
        if allowed is None:
            self._allowed_of_row.pop(request.row, None)
        else:
            self._allowed_of_row[request.row] = torch.tensor(allowed, device=self._device)

    def apply(self, logits: Tensor, planned: Sequence[PlannedRow]) -> None:
        """Change the logits [R, V] of the rows that are constrained, in place."""
        for i, row in enumerate(planned):
            request = row.request
            if request.params.logit_bias:
                bias = request.params.logit_bias
                logits[i, list(bias)] += torch.tensor(list(bias.values()), device=self._device)
            if request.params.allowed_token_ids is not None:
                self._allow_only(logits[i], self._allowed_of_row[request.row])
            forbidden = list(_forbidden(request, row.known - request.num_prompt))
            if forbidden:
                logits[i, forbidden] = _NEVER

    def _allow_only(self, row: Tensor, allowed: Tensor) -> None:
        kept = row[allowed]
        row.fill_(_NEVER)
        row[allowed] = kept


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
