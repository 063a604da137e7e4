"""A client's connection before and after its requests: what it may take its time for, and how it is hung up on.

uvicorn parses HTTP, with httptools where that is installed, else with h11. This adds to either: deadlines for the
head and the body of a request, a bound on the head, errors in OpenAI's envelope, clients that close their sending side
and wait, and a close that lets a client that still sends read why.
"""

import asyncio
import importlib.util
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Literal

from headrace.server.errors import ApiError, envelope
from headrace.server.options import ServerOptions

MAX_HEAD_BYTES = 64 * 2**10
LINGER_SECONDS = 5.0
PROBE_SECONDS = 0.4
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
_EVENT_PROBE = b"3\r\n:\n\n\r\n"

Waiting = Literal["head", "body", None]


class LingeringTransport:
    """A transport whose `close` may wait: a socket that is closed with unread data resets the connection.

    A client that still sends would then never see the answer that says why it should not. So our side is closed, and
    what comes is thrown away, until the client closes its own or `LINGER_SECONDS` are over.
    """

    def __init__(self, transport: asyncio.Transport, must_linger: Callable[[], bool]) -> None:
        self._transport = transport
        self._must_linger = must_linger
        self.write = transport.write
        self.lingering = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more will be sent."""
        return self.lingering or self._transport.is_closing()

    def close(self) -> None:
        """Send what is left, then close."""
        if self.is_closing() or not self._must_linger():
            self._transport.close()
            return
        self.lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)


class Manners:
    """What is added to uvicorn's protocols. They call the methods that have no underscore."""

    options: ServerOptions
    transport: Any
    cycle: Any
    receiving_body: bool

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client is there; it must begin a request soon."""
        self._head_bytes = 0
        self._refused = False
        self._half_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[Waiting, object] = (None, None)
        lingering = LingeringTransport(transport, lambda: self._refused or self.receiving_body)
        super().connection_made(lingering)  # type: ignore[misc]
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._refused or self.transport.lingering:
            return
        if self._waiting_for == "head":
            room = MAX_HEAD_BYTES - self._head_bytes
            if len(data) > room and data.find(b"\r\n\r\n", 0, max(room, 0)) < 0:
                self._refuse(_head_too_large())
                return
            self._head_bytes += len(data)
        super().data_received(data)  # type: ignore[misc]
        if self._waiting_for != "head":
            self._head_bytes = 0
        self._watch()

    def eof_received(self) -> bool:
        """The client sends no more; True if it may still be there for the answer to what it has sent."""
        answering = self._waiting_for is None and not self.transport.is_closing()
        self._half_closed = answering and _can_half_close(self.cycle.scope)
        if self._half_closed:
            self._probe()
        return self._half_closed

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)  # type: ignore[misc]

    def on_response_complete(self) -> None:
        """An answer has been sent; the client may have asked for more already."""
        super().on_response_complete()  # type: ignore[misc]
        if self._half_closed and self._waiting_for == "head":
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(ApiError("This is not an HTTP request", rule="HTTP/1.1 is spoken here", status=400))

    @property
    def _waiting_for(self) -> Waiting:
        """What the client has to send next before anything can happen; None while it is our turn."""
        if self.receiving_body:
            return "body"
        return "head" if self.cycle is None or self.cycle.response_complete else None

    def _watch(self) -> None:
        """Keep the one timer that fits what the client has to send."""
        now = (self._waiting_for, self.cycle)
        if now == self._timed or self.transport.is_closing():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timed, self._timer = now, None
        if now[0] is not None:
            options, loop = self.options, asyncio.get_running_loop()
            body, head = options.request_body_timeout_seconds, options.request_header_timeout_seconds
            self._timer = loop.call_later(body if now[0] == "body" else head, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._timed[0] == "head" and not self._head_bytes:
            self.transport.close()
        elif self._timed == (self._waiting_for, self.cycle):
            self._refuse(_too_slow(self._timed[0]))

    def _refuse(self, error: ApiError) -> None:
        """Answer with `error` if no other answer has begun, and hang up."""
        self._refused = True
        cycle = self.cycle
        busy = cycle is not None and not cycle.response_complete
        if busy:
            cycle.disconnected = True
            cycle.message_event.set()
        if not (busy and cycle.response_started) and not getattr(self, "pipeline", None):
            self.transport.write(_raw(error))
        self.transport.close()

    def _probe(self) -> None:
        """Find out whether a client that sends no more still listens: only writing to it tells.

        Every client that is there skips an interim response, and a comment between events; one that is gone resets
        the connection.
        """
        if self.transport.is_closing() or self._waiting_for is not None:
            return
        if not self.transport.get_write_buffer_size():
            self.transport.write(_EVENT_PROBE if self.cycle.response_started else _PROBE)
        asyncio.get_running_loop().call_later(PROBE_SECONDS, self._probe)


def mannered_protocol(options: ServerOptions) -> type[asyncio.Protocol]:
    """uvicorn's protocol class, with these manners."""
    base = _with_h11() if importlib.util.find_spec("httptools") is None else _with_httptools()
    return type("ManneredProtocol", (base,), {"options": options})


def _with_h11() -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class WithH11(Manners, H11Protocol):  # type: ignore[misc]
        """With the parser that is always there."""

        @property
        def receiving_body(self) -> bool:  # type: ignore[override]
            return self.conn.their_state is h11.SEND_BODY

    return WithH11


def _with_httptools() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class WithHttpTools(Manners, HttpToolsProtocol):  # type: ignore[misc]
        """With the faster parser."""

        receiving_body = False

        def on_headers_complete(self) -> None:
            self.receiving_body = True
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self.receiving_body = False
            super().on_message_complete()

    return WithHttpTools


def _can_half_close(scope: Mapping[str, Any]) -> bool:
    """TLS has no half-closed connections that asyncio knows of, HTTP/1.0 no interim responses."""
    return bool(scope["scheme"] == "http" and scope["http_version"] == "1.1")


def _raw(error: ApiError) -> bytes:
    body = envelope(error)
    status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
    fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return status.encode() + fields.encode() + body


def _head_too_large() -> ApiError:
    return ApiError(
        f"The head of the request has more than {MAX_HEAD_BYTES} bytes",
        fix="Send fewer or shorter headers",
        status=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    )


def _too_slow(part: Waiting) -> ApiError:
    flag = "--request-header-timeout" if part == "head" else "--request-body-timeout"
    return ApiError(
        f"The {part} of the request took too long",
        rule=f"It must have come within the seconds of {flag}",
        fix="Send it faster",
        status=HTTPStatus.REQUEST_TIMEOUT,
    )
