"""A streamed answer on its way out: each step's events are written as they come, or as soon as the client reads again.

While the client keeps up, the dispatcher's call ends in a write to the socket. Else the route's own task writes, and
waits as long as it must; the tokens that come meanwhile are told together. So a slow reader costs others nothing.
"""

from collections.abc import Callable
from typing import Protocol

from headrace.core.outputs import RequestOutput
from headrace.server.connection import Connection
from headrace.server.http import Exchange
from headrace.server.sse import DONE, encode_json
from headrace.server.submission import Outbox, Submission
from headrace.server.usage import Usage

MAX_UNTOLD_VALUES = 2**18
"""Tokens and logprobs that may wait for a client to read; one that has left more unread is disconnected."""


class Events(Protocol):
    """What one kind of answer says, as bytes of whole server-sent events, and the count of what it has said."""

    usage: Usage

    def first(self) -> bytes:
        """What comes before everything else."""

    def next(self, position: int, output: RequestOutput) -> bytes:
        """What `output`, of the prompt at `position`, adds."""

    def around_text(self, position: int, number: int) -> tuple[bytes, bytes] | None:
        """What stands before and after the text in an event of this choice that tells of nothing else.

        None if there are no such events: if they carry counts, ids or logprobs, or none has been told yet.
        """

    def last(self) -> bytes:
        """What comes after everything else."""


class EventStream:
    """Writes what `submission` brings as `events` to the client of `exchange`, and then `mark`."""

    def __init__(self, exchange: Exchange, submission: Submission, events: Events, mark: bytes = DONE) -> None:
        self._exchange = exchange
        self._submission = submission
        self._events = events
        self._mark = mark
        self._led: set[tuple[int, int]] = set()

    async def run(self) -> None:
        """Stream until all is told. The status line waits for the first output, which may be an error."""
        submission, exchange = self._submission, self._exchange
        submission.push = self._push
        while not submission.finished:
            await submission.news()
            if not exchange.started:
                await self._start()
            elif events := self._take():
                await exchange.write(events)
        await exchange.end_stream(self._events.last() + self._mark)

    async def _start(self) -> None:
        await self._exchange.start_stream()
        await self._exchange.write(self._events.first() + self._take())

    def _push(self) -> bool:
        """Write what is new, if the client has read what was before. False if that, or the end, is the task's."""
        connection, submission = self._exchange.direct, self._submission
        if submission.num_untold > MAX_UNTOLD_VALUES:
            self._exchange.hang_up()
        if not submission.waiting or connection is None or not connection.writable:
            return False
        if events := self._take():
            connection.write(b"%x\r\n%b\r\n" % (len(events), events))
        return not submission.finished

    def _take(self) -> bytes:
        parts = []
        for position, output in self._submission.take():
            parts.append(self._events.next(position, output))
            for choice in output.outputs:
                self._lead(position, choice.index)
        return b"".join(parts)

    def _lead(self, position: int, number: int) -> None:
        """A choice that has begun, and whose events are nothing but text, needs no outputs from now on."""
        if (position, number) in self._led:
            return
        self._led.add((position, number))
        around, connection = self._events.around_text(position, number), self._exchange.direct
        text = self._submission.plain_text(position, number)
        if around is not None and connection is not None and text is not None:
            writer = _TextWriter(text, around, connection, self._submission, self._events.usage)
            self._submission.lead(position, number, writer.push)


class _TextWriter:
    """The shortest way of a token to the socket."""

    __slots__ = ("_connection", "_end", "_head", "_next_text", "_size", "_submission", "_usage")

    def __init__(
        self,
        next_text: Callable[[int], str],
        around: tuple[bytes, bytes],
        connection: Connection,
        submission: Submission,
        usage: Usage,
    ) -> None:
        self._next_text = next_text
        self._head, tail = around
        self._end = tail + b"\r\n"
        self._size = len(self._head) + len(tail)
        self._connection = connection
        self._submission = submission
        self._usage = usage

    def push(self, token_id: int, outbox: Outbox) -> bool:
        """See `Push`. False if something else has to be written first."""
        connection = self._connection
        if not (connection.writable and self._submission.waiting):
            return False
        text = self._next_text(token_id)
        self._usage.completion_tokens += 1
        if text:
            encoded = encode_json(text)
            chunk = b"%x\r\n%b%b%b" % (self._size + len(encoded), self._head, encoded, self._end)
            outbox.append((connection, chunk))
        return True
