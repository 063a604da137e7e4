"""The threads that long texts are worked on in: what nobody waits for any more is not begun, and the queue is bounded.

Requests that have a place in the engine's queue are bounded by it. All others share one thread and a bound of their
own, so that however much is tokenized for its own sake, a prompt does not wait for it.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from headrace.core.errors import ErrorKind
from headrace.server.errors import ApiError
from headrace.server.http import ClientGone, Exchange

T = TypeVar("T")

MAX_WAITING_CHARACTERS = 4 * 2**20
"""Of texts without a place in the engine's queue, those in work included. One text alone may be longer."""

CHARACTERS_PER_SECOND = 2**20
"""What a thread tokenizes at least; it says when to come back."""


class TextThreads:
    """Runs text work for exchanges. All methods belong to the event loop's thread."""

    def __init__(self) -> None:
        self._admitted = ThreadPoolExecutor(max_workers=2, thread_name_prefix="headrace-prompts")
        self._others = ThreadPoolExecutor(max_workers=1, thread_name_prefix="headrace-texts")
        self._waiting = 0

    async def run(
        self, exchange: Exchange, num_characters: int, work: Callable[[], T], on_reject: Callable[[str], None]
    ) -> T:
        """What `work` gives. Raises `ClientGone` when the client leaves, a 429 if too much waits already."""
        if exchange.ticket is not None:
            return await _unless_gone(exchange, self._admitted, work)
        with self._place(num_characters, on_reject):
            return await _unless_gone(exchange, self._others, work)

    def shutdown(self) -> None:
        """Begin nothing more."""
        for threads in (self._admitted, self._others):
            threads.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _place(self, num_characters: int, on_reject: Callable[[str], None]) -> Iterator[None]:
        if self._waiting and self._waiting + num_characters > MAX_WAITING_CHARACTERS:
            on_reject("text_characters")
            raise _too_many(self._waiting)
        self._waiting += num_characters
        try:
            yield
        finally:
            self._waiting -= num_characters


async def _unless_gone(exchange: Exchange, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        future.cancel()

    stop_watching = exchange.on_disconnect(leave)
    try:
        return await future
    except asyncio.CancelledError:
        if left:
            raise ClientGone from None
        raise
    finally:
        stop_watching()


def _too_many(waiting: int) -> ApiError:
    seconds = math.ceil(waiting / CHARACTERS_PER_SECOND)
    return ApiError(
        f"Too much text waits: {waiting} characters or token ids",
        rule=f"{MAX_WAITING_CHARACTERS} may wait",
        fix=f"Send the request again in {seconds} s",
        kind=ErrorKind.OVERLOADED,
        code="queue_full",
        headers={"Retry-After": str(seconds)},
    )
