"""One HTTP exchange over raw ASGI: read the body, answer at once or stream, and notice a client that goes away."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from headrace.core.errors import ErrorKind
from headrace.server.admission import Ticket
from headrace.server.connection import EXTENSION, Connection
from headrace.server.errors import ApiError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"


class ClientGone(Exception):
    """The client closed the connection; nobody is there to be answered."""


class Exchange:
    """A request that is being answered. `extra_headers` go out with the answer, whatever it is.

    `ticket` is its place in the queue, on the routes that have one; `status` is what was answered, 0 before.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, max_body_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._body: bytes | None = None
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self.path: str = scope["path"]
        self.extra_headers: list[tuple[bytes, bytes]] = []
        self.ticket: Ticket | None = None
        self.started = False
        self.status = 0
        self._connection: Connection | None = scope.get("extensions", {}).get(EXTENSION)

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self._scope["method"])

    @property
    def http_version(self) -> str:
        """1.0 or 1.1."""
        return str(self._scope["http_version"])

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header called `name`, which is in lower case."""
        return self._headers.get(name)

    def headers(self, name: bytes) -> list[bytes]:
        """The values of all headers called `name`, which is in lower case."""
        return [value for each, value in self._scope["headers"] if each == name]

    async def body(self) -> bytes:
        """The whole body, which is to be JSON. Raises `ClientGone` if it never comes, a 413 or 415 as soon as it can.

        What a client still sends of a body that is refused is thrown away by the connection.
        """
        if self._body is None:
            self._check_content_type()
            self._check_content_encoding()
            self._check_length(int(self.header(b"content-length") or 0))
            self._body = await self._read()
        return self._body

    async def _read(self) -> bytes:
        parts: list[bytes] = []
        length = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            parts.append(part)
            length += len(part)
            self._check_length(length)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_content_type(self) -> None:
        """Without a type it is taken for JSON. Other types are those that a web page may send without being asked."""
        given = self.header(b"content-type") or JSON
        if given == JSON:
            return
        given = given.partition(b";")[0].strip().lower()
        if given in (b"", JSON) or given.endswith(b"+json"):
            return
        raise ApiError(
            f"The Content-Type is {given.decode('latin-1')!r}",
            rule="Bodies are JSON",
            fix="Send the header 'Content-Type: application/json'",
            status=415,
        )

    def _check_content_encoding(self) -> None:
        given = self.header(b"content-encoding")
        if given is None or given.strip().lower() in (b"", b"identity"):
            return
        raise ApiError(
            f"The Content-Encoding is {given.decode('latin-1')!r}",
            rule="Bodies are read as they are, not decompressed",
            fix="Send the body uncompressed, without this header",
            status=415,
            headers={"Accept-Encoding": "identity"},
        )

    def _check_length(self, num_bytes: int) -> None:
        if num_bytes <= self._max_body_bytes:
            return
        raise ApiError(
            f"The request body has {num_bytes} bytes or more",
            rule=f"This server takes {self._max_body_bytes}",
            fix="Send less, or start the server with a larger --max-body-bytes",
            kind=ErrorKind.TOO_LARGE,
            headers={"Connection": "close"},
        )

    async def answer(
        self, body: bytes, *, status: int = 200, content_type: bytes = JSON, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer."""
        extra = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [(b"content-type", content_type), length, *extra])
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def start_stream(self) -> None:
        """Begin a stream of server-sent events."""
        await self._start(200, [(b"content-type", EVENT_STREAM), (b"cache-control", b"no-cache")])

    async def write(self, chunk: bytes) -> None:
        """Send a part of the stream; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    @property
    def direct(self) -> Connection | None:
        """The connection, if parts of a stream that has begun may be written to it past `write`."""
        in_chunks = self.http_version == "1.1" and self.method != "HEAD"
        return self._connection if self.started and in_chunks else None

    def hang_up(self) -> None:
        """End the connection now, whatever of the answer is still unread."""
        if self._connection is not None:
            self._connection.abort()

    async def end_stream(self, chunk: bytes = b"") -> None:
        """Send the last part."""
        await self._send({"type": "http.response.body", "body": chunk})

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], object]:
        """Call `callback` if the client goes away. Call what is given back when the answer is complete."""
        if self._connection is not None:
            return self._connection.watch(callback)
        return asyncio.create_task(self._watch(callback)).cancel

    async def _watch(self, callback: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        callback()

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started, self.status = True, status
        headers += self.extra_headers
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
