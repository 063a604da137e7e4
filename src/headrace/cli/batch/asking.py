"""Asks a server the requests of a batch, again where that helps: a batch has time."""

import asyncio
import time
from collections.abc import Callable

from headrace.cli.batch.lines import BatchRequest
from headrace.cli.client.http import Answer, AnswerTimeout, ConnectionFailed, HttpClient
from headrace.core.errors import ErrorKind, HeadraceError

ATTEMPTS = 8
FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.5, 60.0

SENDINGS = 3
"""How often a request is sent whose answer is a 503: what kills the engine each time must not go on for ever."""
READY_SECONDS, READY_POLL_SECONDS = 600.0, 1.0

OVERLOADED, UNAVAILABLE, UNAUTHORIZED = (
    kind.value for kind in (ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE, ErrorKind.UNAUTHORIZED)
)


class Asker:
    """Asks one server. All methods raise `HeadraceError` for what would befall every request alike.

    That is a server that stays away, or refuses the key. `AnswerTimeout` befalls one request, which is not sent again:
    it would take as long. A server that is full (429) is asked again later. One that is not available (503) is waited
    for; what it failed is then sent again one by one, so that a request that kills the engine does not take others
    with it twice. `say` is told, once each time, that the server is lost.
    """

    def __init__(self, client: HttpClient, say: Callable[[str], None]) -> None:
        self._client = client
        self._say = say
        self._lost = False
        self._one_by_one = asyncio.Lock()

    async def ask(self, request: BatchRequest) -> Answer:
        """The answer to `request`."""
        answer = await self._send(request)
        if answer.status != UNAVAILABLE:
            return answer
        async with self._one_by_one:
            for _ in range(SENDINGS - 1):
                await self._wait_until_ready()
                answer = await self._send(request)
                if answer.status != UNAVAILABLE:
                    break
        return answer

    async def _send(self, request: BatchRequest) -> Answer:
        """Send until there is room for it."""
        for attempt in range(ATTEMPTS):
            answer = await self._reach("POST", request.url, request.body)
            if answer.status == UNAUTHORIZED:
                raise HeadraceError(
                    "The server refuses the key (status 401)",
                    fix="Give the right one with --api-key or HEADRACE_API_KEY, then go on with --resume",
                )
            if answer.status != OVERLOADED:
                break
            await asyncio.sleep(_retry_after(answer, FIRST_DELAY_SECONDS * 2**attempt))
        return answer

    async def _reach(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Exchange one request, on a new connection if one is lost."""
        for attempt in range(ATTEMPTS):
            try:
                answer = await self._client.request(method, path, body)
            except AnswerTimeout:
                raise
            except ConnectionFailed as error:
                await self._wait_for_server(str(error), attempt)
            else:
                self._lost = False
                return answer
        raise AssertionError("the last attempt returns or raises")

    async def _wait_for_server(self, why: str, attempt: int) -> None:
        """Give it time before the next attempt. Raises after the last."""
        if attempt == ATTEMPTS - 1:
            raise HeadraceError(
                f"The server is gone: {why}",
                rule=f"It was tried {ATTEMPTS} times",
                fix="Start it again, then go on with --resume",
                kind=ErrorKind.UNAVAILABLE,
            )
        if not self._lost:
            self._lost = True
            self._say(f"The server does not answer ({why}); it is tried for {PATIENCE_SECONDS:.0f} s more")
        await asyncio.sleep(_delay(attempt))

    async def _wait_until_ready(self) -> None:
        """Servers of other kinds have no /ready: theirs counts as ready."""
        deadline = time.monotonic() + READY_SECONDS
        while (await self._reach("GET", "/ready")).status == UNAVAILABLE and time.monotonic() < deadline:
            await asyncio.sleep(READY_POLL_SECONDS)


def _delay(attempt: int) -> float:
    return min(FIRST_DELAY_SECONDS * 2.0**attempt, MAX_DELAY_SECONDS)


PATIENCE_SECONDS = sum(map(_delay, range(ATTEMPTS - 1)))
"""For how long a server that is lost is tried again."""


def _retry_after(answer: Answer, otherwise: float) -> float:
    """The seconds that the server asks to wait."""
    try:
        seconds = float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        seconds = otherwise
    return min(max(0.0, seconds), MAX_DELAY_SECONDS)
