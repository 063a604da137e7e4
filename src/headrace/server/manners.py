"""A client's connection before and after its requests: what it may take its time for, and how it is hung up on.

uvicorn parses HTTP, with httptools where that is installed, else with h11. This adds to either: deadlines for the
head and the body of a request, a bound on the head, errors in OpenAI's envelope, clients that close their sending side
and wait. With several requests in a pipeline, the deadlines of a later one begin when the earlier ones are answered.
"""

import asyncio
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from headrace.server.errors import ApiError, envelope
from headrace.server.lingering import LingeringTransport
from headrace.server.options import ServerOptions

MAX_HEAD_BYTES = 64 * 2**10
PROBE_SECONDS = 0.4
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
_EVENT_PROBE = b"3\r\n:\n\n\r\n"

Waiting = Literal["head", "body", None]


class Manners(ABC):
    """What is added to uvicorn's protocols. They call the methods that have no underscore."""

    options: ServerOptions
    transport: Any
    cycle: Any
    """The newest request's; with httptools it may have to wait for the answers to those before it."""
    receiving: Waiting
    """What the next bytes belong to; None if they are kept unread until it is their turn."""
    unanswered: list[Any]
    """The cycles whose answer is not complete, the oldest first: only that one is being answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client is there; it must begin a request soon."""
        self._head_bytes = 0
        self._refused = False
        self._half_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[Waiting, object] = (None, None)
        lingering = LingeringTransport(transport, lambda: self._refused or self.receiving == "body")
        super().connection_made(lingering)  # type: ignore[misc]
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._refused or self.transport.lingering:
            return
        if self.receiving == "head" and self._is_too_large(data):
            self._refuse(_head_too_large())
            return
        super().data_received(data)  # type: ignore[misc]
        self._head_bytes = self.unparsed_after(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self._refused:
            self._refuse(_head_too_large())
        self._watch()

    @abstractmethod
    def unparsed_after(self, data: bytes) -> int:
        """How many bytes the parser keeps of a head, of trailers or of a chunk's head, now that it has `data`."""

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
        self._tell_that_the_client_is_gone()
        super().connection_lost(exc)  # type: ignore[misc]

    def on_response_complete(self) -> None:
        """An answer has been sent; the client may have asked for more already."""
        super().on_response_complete()  # type: ignore[misc]
        self._head_bytes = self.unparsed_after(b"")
        if self._half_closed and self._waiting_for is not None:
            self.transport.close()
        elif self._waiting_for == "body" or self._head_bytes:  # else it is the keep-alive's time
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        fix = "Send a request line, a Host header and the others as HTTP/1.1 has them"
        self._refuse(ApiError("This is not a whole HTTP request", rule="HTTP/1.1 is spoken here", fix=fix, status=400))

    @property
    def _waiting_for(self) -> Waiting:
        """What the client has to send next before anything can happen; None while it is our turn."""
        unanswered = self.unanswered
        if self.receiving == "body" and unanswered in ([], [self.cycle]):
            return "body"
        return None if unanswered else "head"

    def _is_too_large(self, data: bytes) -> bool:
        """Whether with `data` the head is too large, and its end is not among what would still be taken."""
        room = MAX_HEAD_BYTES - self._head_bytes
        return len(data) > room and data.find(b"\r\n\r\n", 0, max(room, 0)) < 0

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
        unanswered = self.unanswered
        answered = unanswered[0].response_started if unanswered else self.receiving == "body"
        self._tell_that_the_client_is_gone()
        if not answered and len(unanswered) < 2:
            self.transport.write(_raw(error))
        self.transport.close()

    def _tell_that_the_client_is_gone(self) -> None:
        for cycle in self.unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def _probe(self) -> None:
        """Find out whether a client that sends no more still listens: only writing to it tells.

        Every client that is there skips an interim response, and a comment between events; one that is gone resets
        the connection.
        """
        if self.transport.is_closing() or self._waiting_for is not None:
            return
        if not self.transport.get_write_buffer_size():
            self.transport.write(_EVENT_PROBE if self.unanswered[0].response_started else _PROBE)
        asyncio.get_running_loop().call_later(PROBE_SECONDS, self._probe)


def mannered_protocol(options: ServerOptions) -> type[asyncio.Protocol]:
    """uvicorn's protocol class, with these manners."""
    base = _with_h11() if importlib.util.find_spec("httptools") is None else _with_httptools()
    return type("ManneredProtocol", (base,), {"options": options})


def _with_h11() -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    receiving: dict[object, Waiting] = {h11.IDLE: "head", h11.SEND_BODY: "body"}

    class WithH11(Manners, H11Protocol):  # type: ignore[misc]
        """With the parser that is always there."""

        @property
        def receiving(self) -> Waiting:  # type: ignore[override]
            return receiving.get(self.conn.their_state)

        @property
        def unanswered(self) -> list[Any]:  # type: ignore[override]
            return [] if self.cycle is None or self.cycle.response_complete else [self.cycle]

        def unparsed_after(self, data: bytes) -> int:
            return len(self.conn.trailing_data[0]) if self.receiving else 0

    return WithH11


def _with_httptools() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class WithHttpTools(Manners, HttpToolsProtocol):  # type: ignore[misc]
        """With the faster parser."""

        receiving: Waiting = "head"
        _cycles: tuple[Any, ...] = ()
        _unparsed_bytes = 0
        _got_on = False

        @property
        def unanswered(self) -> list[Any]:  # type: ignore[override]
            return [cycle for cycle in self._cycles if not cycle.response_complete]

        def unparsed_after(self, data: bytes) -> int:
            """What is stored of a value that goes on is not to be seen; so all is counted until something is done."""
            self._unparsed_bytes = 0 if self._got_on else self._unparsed_bytes + len(data)
            self._got_on = False
            return self._unparsed_bytes

        def on_header(self, name: bytes, value: bytes) -> None:
            if self.receiving == "head":  # else it is a trailer, which nobody reads
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self.receiving, self._got_on = "body", True
            self._cycles = (*self.unanswered, self.cycle)

        def on_body(self, body: bytes) -> None:
            self._got_on = True
            super().on_body(body)

        def on_message_complete(self) -> None:
            self.receiving, self._got_on = "head", True
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
        f"The head or the trailers of the request have more than {MAX_HEAD_BYTES} bytes",
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
