"""What a step made, gathered request by request into the columns that are sent."""

from array import array

import numpy as np
from numpy.typing import NDArray

from headrace.core.outputs import TokenLogprobs
from headrace.engine.request import Request
from headrace.wire.messages import RUNNING, StepOutput

NO_TOKEN = -1


class OutputColumns:
    """A `StepOutput` in the making, of a step that computed `num_tokens`."""

    def __init__(self, num_tokens: int) -> None:
        self._num_tokens = num_tokens
        self._uids = array("q")
        self._tokens = array("i")
        self._ends: list[tuple[int, int, int]] = []
        self._logprobs: dict[int, TokenLogprobs] = {}
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

    def add_all(self, uids: NDArray[np.int64], tokens: NDArray[np.int32]) -> None:
        """Rows [N] whose sequences go on."""
        self._uids.frombytes(uids.tobytes())
        self._tokens.frombytes(tokens.tobytes())

    def add(self, uid: int, token: int, logprobs: TokenLogprobs | None) -> None:
        """A row whose sequence goes on, unless `last` follows."""
        if logprobs is not None:
            self._logprobs[len(self._uids)] = logprobs
        self._uids.append(uid)
        self._tokens.append(token)

    def last(self, request: Request, finish: int, stop_token: int) -> None:
        """Say of the row just added why its sequence ends, and what is said at a sequence's end."""
        self._ends.append((len(self._uids) - 1, finish, stop_token))
        if request.num_preemptions:
            self._preemptions[request.uid] = request.num_preemptions

    def message(self) -> StepOutput:
        """All rows as bytes."""
        count = len(self._uids)
        finish, stop_tokens = array("b", [RUNNING]) * count, array("i", [NO_TOKEN]) * count
        for row, reason, token in self._ends:
            finish[row], stop_tokens[row] = reason, token
        return StepOutput(
            self._uids.tobytes(),
            self._tokens.tobytes(),
            finish.tobytes(),
            stop_tokens.tobytes(),
            [self._logprobs.get(row) for row in range(count)] if self._logprobs else None,
            self._prompt_logprobs,
            self._cached_tokens,
            self._queue_seconds,
            self._preemptions,
            self._num_tokens,
        )
