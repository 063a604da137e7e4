"""One sequence of the fake engine: which token it says next, and with which logprobs."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.core.outputs import Logprob, TokenLogprobs
from headrace.wire.messages import LENGTH, RUNNING, STOP, AddRequest

BLOCK_TOKENS = 16
"""Tokens of a KV block that the fake engine claims to have."""


@dataclass(slots=True, eq=False)
class ScriptedSequence:
    """A sequence that says `script`, from the place at which a continued request was cut."""

    uid: int
    request: AddRequest
    script: Sequence[int]
    arrival: float
    queue_seconds: float = 0.0
    position: int = 0

    def __post_init__(self) -> None:
        self.position = len(self.request.output_token_ids)

    @property
    def started(self) -> bool:
        """Whether it has said a token."""
        return self.position > len(self.request.output_token_ids)

    @property
    def num_given(self) -> int:
        """Tokens that the request came with."""
        return len(self.request.prompt_token_ids) + len(self.request.output_token_ids)

    @property
    def num_cached(self) -> int:
        """Half of the prompt, as if a prefix cache had had it."""
        return len(self.request.prompt_token_ids) // 2

    @property
    def num_to_compute(self) -> int:
        """Tokens that the next step computes for it."""
        return 1 if self.started else self.num_given - self.num_cached

    @property
    def num_blocks(self) -> int:
        """KV blocks that it would hold."""
        return -(-(len(self.request.prompt_token_ids) + self.position) // BLOCK_TOKENS)

    def next_row(self, end_token_id: int) -> "Row":
        """Its next token, and whether it ends: with the script, or at `max_tokens`."""
        params, position = self.request.params, self.position
        self.position += 1
        token_id = self.script[position] if position < len(self.script) else end_token_id
        logprobs = _logprobs(token_id, params.logprobs)
        if position >= len(self.script) and not params.ignore_eos:
            return Row(self, token_id, STOP, logprobs)
        return Row(self, token_id, LENGTH if self.position == params.max_tokens else RUNNING, logprobs)

    def prompt_logprobs(self) -> list[TokenLogprobs | None] | None:
        """What `prompt_logprobs` asks for, if it asks for anything."""
        count = self.request.params.prompt_logprobs
        if count is None:
            return None
        return [None, *(_logprobs(token_id, count) for token_id in self.request.prompt_token_ids[1:])]


@dataclass(slots=True)
class Row:
    """One token of a sequence; `finish` indexes `FINISH_REASONS`."""

    sequence: ScriptedSequence
    token_id: int
    finish: int
    logprobs: TokenLogprobs | None


def _logprobs(token_id: int, count: int | None) -> TokenLogprobs | None:
    """The said token is the likeliest; the alternatives are the ids after it."""
    if count is None:
        return None
    return {token_id + rank: Logprob(-0.5 * (rank + 1), rank + 1) for rank in range(max(count, 1))}
