"""Sends the load to a server and times each answer.

The clock of a request starts when it was due, not when it could be sent: a server that slows down cannot thereby
hide how long its users wait (coordinated omission). How late requests were sent is kept beside it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.cli.bench.stream import TimedStream
from headrace.cli.client.http import AnswerTimeout, ConnectionFailed, HttpClient

START_DELAY_SECONDS = 0.05
OK = "ok"


@dataclass(slots=True)
class RequestRecord:
    """What became of one request. Times are of one clock, in seconds; `status` is "ok", an HTTP status or a word."""

    due: float
    sent: float
    ended: float = 0.0
    first: float | None = None
    last: float = 0.0
    gaps: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    status: str = OK
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the whole answer came."""
        return self.status == OK

    @property
    def ttft(self) -> float:
        """Seconds from when it was due to the first text."""
        return (self.ended if self.first is None else self.first) - self.due

    @property
    def e2el(self) -> float:
        """Seconds from when it was due to the end of the answer."""
        return self.ended - self.due

    @property
    def tpot(self) -> float | None:
        """Seconds for each token after the first; None if there is none."""
        if self.first is None or self.output_tokens < 2:
            return None
        return (self.last - self.first) / (self.output_tokens - 1)

    @property
    def delay(self) -> float:
        """Seconds by which it was sent late."""
        return self.sent - self.due


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A body to send, when it is due in seconds from the start, and how many tokens its prompt is meant to have."""

    body: bytes
    due_seconds: float
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Load:
    """`requests` to `path`. At most `max_concurrency` are open; a `closed_loop` has no due times but a free place."""

    path: str
    requests: Sequence[LoadRequest]
    max_concurrency: int | None
    closed_loop: bool


class LoadGenerator:
    """Runs one load. `records` has an entry for each request that has ended, in the order in which they did."""

    def __init__(self, client: HttpClient, load: Load) -> None:
        self._client = client
        self._load = load
        self._places = asyncio.Semaphore(load.max_concurrency or len(load.requests) or 1)
        self.records: list[RequestRecord] = []
        self.seconds = 0.0

    async def run(self) -> None:
        """Send everything and wait for all answers."""
        began = time.perf_counter() + START_DELAY_SECONDS
        try:
            async with asyncio.TaskGroup() as tasks:
                for request in self._load.requests:
                    due = began + request.due_seconds
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    tasks.create_task(self._send(request, due))
        finally:
            self.seconds = max((record.ended for record in self.records), default=began) - began

    async def _send(self, request: LoadRequest, due: float) -> None:
        async with self._places:
            sent = time.perf_counter()
            record = RequestRecord(sent if self._load.closed_loop else due, sent, prompt_tokens=request.prompt_tokens)
            stream = TimedStream(time.perf_counter)
            try:
                answer = await self._client.request("POST", self._load.path, request.body, stream.feed)
            except AnswerTimeout as error:
                record.status, record.error = "timeout", str(error)
            except ConnectionFailed as error:
                record.status, record.error = "cut" if error.began else "no connection", str(error)
            else:
                if answer.status != 200:
                    record.status, record.error = str(answer.status), answer.body[:300].decode(errors="replace")
            record.ended = time.perf_counter()
            _note(record, stream)
            self.records.append(record)


def _note(record: RequestRecord, stream: TimedStream) -> None:
    """What the stream showed."""
    record.first, record.last, record.gaps = stream.first, stream.last, stream.gaps
    record.output_tokens = stream.output_tokens
    record.prompt_tokens = stream.prompt_tokens or record.prompt_tokens
    if stream.error is not None:
        record.status, record.error = "broken", stream.error
    elif record.ok and not stream.complete:
        record.status, record.error = "cut", "the stream ended without its [DONE]"
