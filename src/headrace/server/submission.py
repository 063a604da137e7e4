"""Requests that one HTTP exchange waits for together, and the wake-up that joins the engine's rows to their reader."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from headrace.core.outputs import RequestOutput
from headrace.text.stream import RequestStream


class Submission:
    """One reader, one or more streams. `uids` are the sequences that still run.

    A reader that is slower than the engine gets several tokens at once; nothing is queued but text.
    """

    def __init__(self, streams: Sequence[RequestStream], abort: Callable[[list[int]], None]) -> None:
        self._streams = streams
        self._abort = abort
        self._touched: dict[int, None] = {}
        self._wake = asyncio.Event()
        self._error: Exception | None = None
        self.uids: set[int] = set()

    def touch(self, position: int) -> None:
        """The stream at `position` has something new."""
        self._touched[position] = None
        self._wake.set()

    def fail(self, error: Exception) -> None:
        """End the reader with `error`."""
        self._error = error
        self._wake.set()

    def abort(self) -> None:
        """Give up what still runs; nothing happens if all has ended."""
        if self.uids:
            self._abort(list(self.uids))
            self.uids.clear()

    async def outputs(self) -> AsyncIterator[tuple[int, RequestOutput]]:
        """(position, output) whenever a stream has one, until all are finished. Raises what `fail` was given."""
        unfinished = len(self._streams)
        while unfinished:
            await self._wake.wait()
            self._wake.clear()
            if self._error is not None:
                raise self._error
            touched, self._touched = self._touched, {}
            for position in touched:
                stream = self._streams[position]
                output, finished = stream.output(), stream.finished
                if output is not None:
                    yield position, output
                unfinished -= finished

    async def results(self) -> list[RequestOutput]:
        """The last output of each stream, in order."""
        last = {position: output async for position, output in self.outputs()}
        return [last[position] for position in range(len(self._streams))]
