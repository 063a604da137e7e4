"""A client's connection as a stream uses it: written to without a task switch, and ended if the client stops reading.

uvicorn's protocols do the HTTP. What ASGI has no word for is added here, by the callbacks that asyncio gives every
protocol, and handed to the application in the request's scope.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

App = Callable[[Any, Any, Any], Awaitable[None]]

EXTENSION = "headrace.connection"
"""Where a request's scope has its connection, below "extensions"."""


class Connection:
    """The write side. `writable` is false while what was written waits for the client to read, and after its end.

    A client that reads nothing for `stall_seconds` while something waits for it is disconnected; 0 lets it be.
    """

    __slots__ = ("_lost", "_stall_seconds", "_timer", "_transport", "_when_lost", "writable")

    def __init__(self, transport: asyncio.Transport, stall_seconds: float) -> None:
        self.writable = True
        self._transport = transport
        self._stall_seconds = stall_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._lost = False
        self._when_lost: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        """Send bytes as they are, without waiting: of a chunked HTTP/1.1 body that has begun, whole chunks."""
        if self._transport.is_closing():  # asyncio would warn of each write
            self.writable = False
            return
        try:
            self._transport.write(data)
        except RuntimeError:  # our side has been closed meanwhile, as the application is about to be told
            self.writable = False

    def abort(self) -> None:
        """End the connection now; what has not been read is lost."""
        self._transport.abort()

    def watch(self, when_lost: Callable[[], None]) -> Callable[[], None]:
        """Call `when_lost` when the connection ends, or now if it has. What is given back stops that."""
        self._when_lost = when_lost
        if self._lost:
            when_lost()
        return self._forget

    def on_pause(self) -> None:
        """The client reads too slowly."""
        self.writable = False
        if self._stall_seconds:
            self._watch_progress()

    def on_resume(self) -> None:
        """The client has read most of what waited."""
        self.writable = True
        self._stop_timer()

    def on_lost(self) -> None:
        """The connection has ended, or nothing on it will be answered any more."""
        self._lost, self.writable = True, False
        self._stop_timer()
        if self._when_lost is not None:
            self._when_lost()

    def _forget(self) -> None:
        self._when_lost = None

    def _watch_progress(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(self._stall_seconds, self._check, waiting)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, waited: int) -> None:
        if self._transport.get_write_buffer_size() < waited:
            self._watch_progress()
        else:
            self.abort()


def with_connection(protocol: type[asyncio.Protocol], stall_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's `protocol`, which gives each request its `Connection`."""
    return type("Connected", (_Connected, protocol), {"stall_seconds": stall_seconds})


class _Connected(asyncio.Protocol):
    """What is mixed into uvicorn's protocol."""

    stall_seconds: float
    app: App

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connection = Connection(transport, self.stall_seconds)
        self.app = _with_connection(self.app, self._connection)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.on_lost()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP; after it comes nothing."""
        super().send_400_response(msg)  # type: ignore[misc]
        self._connection.on_lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connection.on_pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connection.on_resume()


def _with_connection(app: App, connection: Connection) -> App:
    async def connected(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"] = {**scope.get("extensions", {}), EXTENSION: connection}
        await app(scope, receive, send)

    return connected
