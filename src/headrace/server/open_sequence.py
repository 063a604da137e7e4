"""What the front knows of a sequence that the engine works on: whose it is, and how it has gone so far."""

from headrace.server.metrics import RequestTimes, ServerMetrics
from headrace.server.submission import Push, Submission
from headrace.text.stream import RequestStream
from headrace.wire.messages import AddRequest


class OpenRequest:
    """What the n sequences of a request share."""

    __slots__ = ("arrival", "begun", "longest_tokens", "max_tokens", "n", "num_open", "prompt_tokens")

    def __init__(self, add: AddRequest, stream: RequestStream) -> None:
        self.arrival = stream.arrival_time
        self.prompt_tokens = len(add.prompt_token_ids)
        self.n = self.num_open = len(add.uids)
        self.max_tokens = add.params.max_tokens
        self.begun = False
        self.longest_tokens = 0


class OpenSequence:
    """Sequence `number` of the stream at `position` in its submission.

    A token that does not end it is first offered to `push`, which says whether it has done all there was to do.
    """

    __slots__ = (
        "_cached_tokens",
        "_first_token",
        "_queue_seconds",
        "_request",
        "last_token",
        "num_tokens",
        "number",
        "position",
        "push",
        "stream",
        "submission",
    )

    def __init__(
        self, submission: Submission, request: OpenRequest, stream: RequestStream, position: int, number: int
    ) -> None:
        self.submission = submission
        self.stream = stream
        self.position = position
        self.number = number
        self.push: Push | None = None
        self.last_token = 0.0
        self.num_tokens = 0
        self._request = request
        self._first_token = 0.0
        self._queue_seconds = 0.0
        self._cached_tokens = 0

    def begin(self, now: float, queue_seconds: float, cached_tokens: int, metrics: ServerMetrics) -> None:
        """Its first token has come."""
        request = self._request
        self._first_token, self._queue_seconds, self._cached_tokens = now, queue_seconds, cached_tokens
        metrics.on_first_token(now - request.arrival, cached_tokens, 0 if request.begun else request.prompt_tokens)
        request.begun = True

    def end(self, reason: str, preemptions: int, metrics: ServerMetrics) -> None:
        """It has ended, for a reason as in `RequestTimes`."""
        request = self._request
        request.num_open -= 1
        request.longest_tokens = max(request.longest_tokens, self.num_tokens)
        times = RequestTimes(
            arrival=request.arrival,
            first_token=self._first_token,
            last_token=self.last_token,
            queue_seconds=self._queue_seconds,
            prompt_tokens=request.prompt_tokens,
            cached_tokens=self._cached_tokens,
            output_tokens=self.num_tokens,
            n=request.n,
            max_tokens=request.max_tokens,
            preemptions=preemptions,
            reason=reason,
            longest_tokens=None if request.num_open else request.longest_tokens,
        )
        metrics.on_finish(times)
