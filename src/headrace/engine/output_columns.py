"""What a step made, gathered request by request into the columns that are sent."""

from array import array

from headrace.core.outputs import TokenLogprobs
from headrace.engine.request import Request
from headrace.wire.messages import StepOutput


class OutputColumns:
    """A `StepOutput` in the making, of a step that computed `num_tokens`."""

    def __init__(self, num_tokens: int) -> None:
        self._num_tokens = num_tokens
        self._uids, self._tokens = array("q"), array("i")
        self._finish, self._stop_tokens = array("b"), array("i")
        self._logprobs: list[TokenLogprobs | None] = []
        self._prompt_logprobs: dict[int, list[TokenLogprobs | None]] = {}
        self._cached_tokens: dict[int, int] = {}
        self._queue_seconds: dict[int, float] = {}
        self._preemptions: dict[int, int] = {}

    def first(self, request: Request) -> None:
        """Say what is said once a sequence; a fork has no prompt logprobs of its own.

        Of a continued answer, what was cached of its output is not counted: callers compare with the prompt.
        """
        self._cached_tokens[request.uid] = min(request.num_cached or 0, request.num_prompt)
        self._queue_seconds[request.uid] = request.queue_seconds or 0.0
        if len(request.prompt_logprobs) == request.num_prompt and request.params.prompt_logprobs is not None:
            self._prompt_logprobs[request.uid] = request.prompt_logprobs

    def last(self, request: Request) -> None:
        """Say what is said at a sequence's end."""
        if request.num_preemptions:
            self._preemptions[request.uid] = request.num_preemptions

    def add(self, uid: int, token: int, finish: int, stop_token: int, logprobs: TokenLogprobs | None) -> None:
        """One row."""
        self._uids.append(uid)
        self._tokens.append(token)
        self._finish.append(finish)
        self._stop_tokens.append(stop_token)
        self._logprobs.append(logprobs)

    def message(self) -> StepOutput:
        """All rows as bytes."""
        return StepOutput(
            self._uids.tobytes(),
            self._tokens.tobytes(),
            self._finish.tobytes(),
            self._stop_tokens.tobytes(),
            self._logprobs if any(entry is not None for entry in self._logprobs) else None,
            self._prompt_logprobs,
            self._cached_tokens,
            self._queue_seconds,
            self._preemptions,
            self._num_tokens,
        )
