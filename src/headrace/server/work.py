"""How much work a request is, in tokens: its prompt's, and for each of its n answers those that it will probably have.

`max_tokens` alone says too much: who leaves it out gets all that the context has left, and uses little of it. So an
answer counts for no more than answers have lately had on average.
"""

from headrace.wire.messages import AddRequest

ASSUMED_OUTPUT_TOKENS = 64.0
REMEMBERED_ANSWERS = 64.0


class WorkEstimate:
    """Learns from the answers that were given to their end."""

    def __init__(self) -> None:
        self._mean = ASSUMED_OUTPUT_TOKENS

    def learn(self, answers: int, tokens: int) -> None:
        """So many answers had so many tokens together."""
        kept = (1.0 - 1.0 / REMEMBERED_ANSWERS) ** answers
        self._mean = kept * self._mean + (1.0 - kept) * tokens / answers

    def of(self, request: AddRequest) -> float:
        """The tokens that the engine will probably compute for `request`."""
        told, most = len(request.output_token_ids), request.params.max_tokens
        output = self._mean if most is None else min(self._mean, most - told)
        return len(request.prompt_token_ids) + told + len(request.uids) * output
