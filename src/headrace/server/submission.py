"""Requests that one HTTP exchange waits for together, and how the engine's rows get to their reader."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from headrace.core.outputs import RequestOutput
from headrace.server.connection import Connection
from headrace.text.stream import RequestStream

if TYPE_CHECKING:
    from headrace.server.open_sequence import OpenSequence

Output = tuple[int, RequestOutput]
"""A stream's position in its submission, and what it has to tell."""


Outbox = list[tuple[Connection, bytes]]
"""What is to be written once a step's rows have all been looked at: the kernel's work and ours do not mix well."""

Push = Callable[[int, Outbox], bool]
"""Takes a token, and says whether that was all there was to do."""


class Submission:
    """One reader, one or more streams. `sequences` are those that still run, by uid.

    What is new goes to `push` if there is one and it takes it, which costs no task switch, or else wakes the reader. A
    reader that is slower than the engine gets several tokens at once; `num_untold` says how much waits for it.
    """

    def __init__(self, streams: Sequence[RequestStream], abort: Callable[[list[int]], None]) -> None:
        self._streams = streams
        self._abort = abort
        self._unfinished = len(streams)
        self._touched: dict[int, None] = {}
        self._roused = False
        self._sleep: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.sequences: dict[int, OpenSequence] = {}
        self.num_untold = 0
        self.waiting = False
        """Whether the reader has taken all there was, and waits for more."""
        self.push: Callable[[], bool] | None = None

    @property
    def finished(self) -> bool:
        """Whether every stream has told its end."""
        return self._unfinished == 0

    def touch(self, position: int, num_values: int = 1) -> None:
        """The stream at `position` has something new: a token and its logprobs, so many values."""
        self._touched[position] = None
        self.num_untold += num_values

    def notify(self) -> None:
        """All that a step has brought is there."""
        if self.push is None or self._error is not None or not self.push():
            self._rouse()

    def fail(self, error: Exception) -> None:
        """End the reader with `error`."""
        self._error = error
        self._rouse()

    def abort(self) -> None:
        """Give up what still runs; nothing happens if all has ended."""
        if self.sequences:
            self._abort(list(self.sequences))
            self.sequences.clear()

    def finished_sizes(self) -> list[tuple[int, int]]:
        """How many sequences each stream has that came to its end, and how many tokens they had together."""
        return [(stream.num_sequences, stream.num_output_tokens) for stream in self._streams if stream.finished]

    def plain_text(self, position: int, number: int) -> Callable[[int], str] | None:
        """See `RequestStream.plain_text`."""
        return self._streams[position].plain_text(number)

    def lead(self, position: int, number: int, push: Push) -> None:
        """From now on offer the tokens of sequence `number` of the stream at `position` to `push` first."""
        for sequence in self.sequences.values():
            if (sequence.position, sequence.number) == (position, number):
                sequence.push = push

    async def news(self) -> None:
        """Return when there is something to take. Raises what `fail` was given."""
        if not self._roused:
            self.waiting, self._sleep = True, asyncio.get_running_loop().create_future()
            await self._sleep
        self._roused = False
        if self._error is not None:
            raise self._error

    def take(self) -> list[Output]:
        """What the streams have to tell."""
        touched, self._touched, self.num_untold = self._touched, {}, 0
        outputs: list[Output] = []
        for position in touched:
            stream = self._streams[position]
            output = stream.output()
            if output is not None:
                outputs.append((position, output))
            self._unfinished -= stream.finished
        return outputs

    async def outputs(self) -> AsyncIterator[Output]:
        """(position, output) whenever a stream has one, until all are finished. Raises what `fail` was given."""
        while not self.finished:
            await self.news()
            for output in self.take():
                yield output

    async def results(self) -> list[RequestOutput]:
        """The last output of each stream, in order."""
        last: dict[int, RequestOutput] = {}
        while not self.finished:
            await self.news()
            last.update(self.take())
        return [last[position] for position in range(len(self._streams))]

    def _rouse(self) -> None:
        self.waiting, self._roused = False, True
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)
