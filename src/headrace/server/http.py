"""One HTTP exchange over raw ASGI: read the body, answer at once or stream, and notice a client that goes away."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

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
    """A request that is being answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.started = False

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self._scope["method"])

    @property
    def path(self) -> str:
        """The path, without the query."""
        return str(self._scope["path"])

    async def body(self) -> bytes:
        """The whole body. Raises `ClientGone` if it never comes."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

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

    async def end_stream(self, chunk: bytes = b"") -> None:
        """Send the last part."""
        await self._send({"type": "http.response.body", "body": chunk})

    def on_disconnect(self, callback: Callable[[], None]) -> "asyncio.Task[None]":
        """Call `callback` if the client goes away. Cancel the task when the answer is complete."""
        return asyncio.create_task(self._watch(callback))

    async def _watch(self, callback: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        callback()

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
