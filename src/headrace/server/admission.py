"""Who is let in: the queue before the engine is bounded, in requests, in tokens of work and in seconds.

A request waits from when its body has come until its first token has. All of that is known here, so that checking and
reserving are one step, before any text is tokenized: the work is first estimated from the body's size, and corrected
once it is known. What has its first token runs; it waits no more, and is bounded by the engine itself.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.core.counted import counted
from headrace.core.errors import ErrorKind
from headrace.server.drain_rate import DrainRate
from headrace.server.errors import ApiError
from headrace.server.metrics import ServerMetrics
from headrace.server.options import ServerOptions, flag_of
from headrace.server.work import WorkEstimate
from headrace.wire.messages import AddRequest, StepOutput

BYTES_PER_TOKEN = 4
ASSUMED_STEPS_PER_SECOND = 4.0
"""Full steps that the engine is thought to make, until it is known how fast it is."""

BACKLOG_SECONDS = 1.0
"""A queue is held up by the engine if its head has waited so long, however short the queue is."""

MAX_RETRY_AFTER_SECONDS = 60
"""OpenAI's clients do not heed a larger one."""


@dataclass(slots=True, eq=False)
class _Place:
    """A prompt's place in the queue."""

    tokens: float
    since: float


class Ticket:
    """One admitted exchange, and what of it still waits, until the block that it is used in is left."""

    def __init__(self, place: _Place, give_back: "Callable[[Ticket], None]") -> None:
        self.places = [place]
        self.uids: list[int] = []
        self._give_back = give_back

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back(self)


class Admission:
    """The queue's bounds and what waits. All methods belong to the event loop's thread."""

    def __init__(
        self, options: ServerOptions, metrics: ServerMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._queue: dict[_Place, None] = {}
        self._by_uid: dict[int, _Place] = {}
        self._tokens = 0.0
        self._work = WorkEstimate()
        self.start_engine(max_num_batched_tokens=2_048)

    @property
    def num_waiting(self) -> int:
        """Prompts that were let in and have no token yet."""
        return len(self._queue)

    @property
    def num_waiting_tokens(self) -> int:
        """The work of what waits."""
        return round(self._tokens)

    @property
    def full(self) -> bool:
        """Whether one more small request would be refused."""
        return self._exceeded(1, 1.0) is not None

    def start_engine(self, max_num_batched_tokens: int) -> None:
        """A new engine takes the requests: how fast it is has to be found out."""
        self._step_tokens = max_num_batched_tokens
        self._rate = DrainRate(ASSUMED_STEPS_PER_SECOND * max_num_batched_tokens)
        self._counted_at = self._clock()

    def check(self) -> None:
        """Raise a 429 if nothing more can wait. Costs next to nothing, so it comes before the body is read."""
        self._advance()
        self._refuse_if_exceeded(1, 1.0)

    def reserve(self, num_bytes: int) -> Ticket:
        """A place in the queue for a body of `num_bytes`. Raises a 429 if there is none."""
        self._advance()
        tokens = num_bytes / BYTES_PER_TOKEN
        self._refuse_if_exceeded(1, tokens)
        return Ticket(self._enter(tokens), self._give_back)

    def correct(self, ticket: Ticket, requests: Sequence[AddRequest]) -> None:
        """Now the work is known, a place for each prompt. Raises a 429 if there is no room for that much."""
        self._advance()
        self._give_back(ticket)
        work = list(map(self._work.of, requests))
        self._refuse_if_exceeded(len(work), sum(work))
        for request, tokens in zip(requests, work, strict=True):
            place = self._enter(tokens)
            ticket.places.append(place)
            ticket.uids += request.uids
            for uid in request.uids:
                self._by_uid[uid] = place

    def on_step(self, step: StepOutput) -> None:
        """A step of the engine: what has its first token leaves the queue."""
        if step.queue_seconds:
            held_up = self._advance()
            for uid in step.queue_seconds:
                if (place := self._by_uid.pop(uid, None)) is not None and place in self._queue:
                    if held_up:
                        self._rate.left(place.tokens)
                    self._leave(place)

    def learn(self, answers: int, tokens: int) -> None:
        """So many answers came to their end, with so many tokens together."""
        self._work.learn(answers, tokens)

    def retry_after_seconds(self) -> int:
        """When half of what waits has probably left."""
        seconds = self._tokens / 2 / max(self._tokens_per_second(), 1e-9)
        return max(1, min(MAX_RETRY_AFTER_SECONDS, math.ceil(seconds)))

    def _refuse_if_exceeded(self, requests: int, tokens: float) -> None:
        if (limit := self._exceeded(requests, tokens)) is None:
            return
        self._metrics.on_reject(limit.removesuffix("_seconds"))
        seconds = self.retry_after_seconds()
        raise ApiError(
            f"Too much work waits: {counted(self.num_waiting, 'request')} with "
            f"{counted(self.num_waiting_tokens, 'token')}",
            rule=f"{flag_of(limit)} is {getattr(self._options, limit):g}",
            fix=f"Send the request again in {seconds} s",
            kind=ErrorKind.OVERLOADED,
            code="queue_full",
            headers={"Retry-After": str(seconds)},
        )

    def _exceeded(self, requests: int, tokens: float) -> str | None:
        """The limit that so much more would exceed. Where nothing waits, anything may.

        The time is what passes before its turn comes, so that its own size does not shut a long prompt out.
        """
        options = self._options
        if not self._queue:
            return None
        if 0 < options.max_num_queued_reqs < self.num_waiting + requests:
            return "max_num_queued_reqs"
        if 0 < options.max_num_queued_tokens < self._tokens + tokens:
            return "max_num_queued_tokens"
        return "max_queue_time_seconds" if self._tokens > self._timely_tokens() else None

    def _timely_tokens(self) -> float:
        """The work that can wait without waiting longer than `max_queue_time_seconds`."""
        seconds = self._options.max_queue_time_seconds
        return self._tokens_per_second() * seconds if seconds else math.inf

    def _tokens_per_second(self) -> float:
        head = next(iter(self._queue), None)
        return self._rate.per_second(0.0 if head is None else head.tokens)

    def _enter(self, tokens: float) -> _Place:
        place = _Place(tokens, self._clock())
        self._queue[place] = None
        self._tokens += tokens
        return place

    def _leave(self, place: _Place) -> None:
        del self._queue[place]
        self._tokens = self._tokens - place.tokens if self._queue else 0.0

    def _give_back(self, ticket: Ticket) -> None:
        for uid in ticket.uids:
            self._by_uid.pop(uid, None)
        for place in ticket.places:
            if place in self._queue:
                self._leave(place)
        ticket.uids.clear()
        ticket.places.clear()

    def _advance(self) -> bool:
        """Count the time since the last change, as far as the engine held up the queue. Whether it still does."""
        now, since = self._clock(), self._counted_at
        self._counted_at = now
        if not self._queue:
            return False
        if self._tokens < min(self._step_tokens, self._timely_tokens() / 2):
            since = max(since, next(iter(self._queue)).since + BACKLOG_SECONDS)
        if now <= since:
            return False
        self._rate.elapse(now - since)
        return True
