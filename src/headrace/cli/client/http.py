"""A small HTTP/1.1 client on asyncio's protocols: connections are kept, and pieces of a body are told as they arrive.

It exists because a load generator must not be what it measures: a streamed chunk costs a few microseconds here.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from headrace.cli.client.address import ServerAddress
from headrace.cli.client.response import Head, MalformedAnswer, ResponseReader

CONNECT_TIMEOUT_SECONDS = 30.0


class ConnectionFailed(Exception):
    """There was no answer, or not a whole one. `began` tells whether a part of it had come."""

    def __init__(self, reason: str, *, began: bool = False) -> None:
        super().__init__(reason)
        self.began = began


class AnswerTimeout(ConnectionFailed):
    """The whole answer was not there in time. The connection is closed, so that the server gives the request up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `body` is empty if its pieces were told as they came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Talks to one server. Belongs to one event loop; as many requests at once as are started.

    A request may take `timeout_seconds`, from its sending to the end of its answer; None for any time.
    """

    def __init__(
        self, address: ServerAddress, api_key: str | None = None, timeout_seconds: float | None = None
    ) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._ssl = ssl.create_default_context() if address.https else None
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._fixed = f"Host: {address.authority}\r\nUser-Agent: headrace\r\nAccept: */*\r\n{key}"
        self._idle: list[_Connection] = []

    async def request(
        self, method: str, path: str, body: bytes = b"", on_piece: Callable[[bytes], None] | None = None
    ) -> Answer:
        """Send a request and wait for the end of its answer. Raises `ConnectionFailed`, or its kind `AnswerTimeout`.

        The body of a 200 goes piece by piece to `on_piece`, if there is one. A kept connection that the server closed
        meanwhile is replaced by a new one.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._request(self._message(method, path, body), on_piece)
        except TimeoutError:
            raise AnswerTimeout(f"no whole answer within {self._timeout_seconds:g} s") from None

    async def connect(self) -> None:
        """Open a connection and keep it, to see whether there is a server. Raises `HeadraceError` if there is none."""
        try:
            self._idle.append(await self._connect())
        except ConnectionFailed as error:
            raise self._address.unreachable(error) from None

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop().abort()

    def _message(self, method: str, path: str, body: bytes) -> bytes:
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        return f"{method} {self._address.root}{path} HTTP/1.1\r\n{self._fixed}{content}\r\n".encode() + body

    async def _request(self, message: bytes, on_piece: Callable[[bytes], None] | None) -> Answer:
        while self._idle:
            try:
                return await self._exchange(self._idle.pop(), message, on_piece)
            except ConnectionFailed as error:
                if error.began:
                    raise
        return await self._exchange(await self._connect(), message, on_piece)

    async def _exchange(
        self, connection: "_Connection", message: bytes, on_piece: Callable[[bytes], None] | None
    ) -> Answer:
        try:
            answer = await connection.exchange(message, on_piece)
        except BaseException:
            connection.abort()
            raise
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    async def _connect(self) -> "_Connection":
        loop, address = asyncio.get_running_loop(), self._address
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                if address.unix_path is not None:
                    _, made = await loop.create_unix_connection(_Connection, address.unix_path)
                else:
                    _, made = await loop.create_connection(_Connection, address.host, address.port, ssl=self._ssl)
        except TimeoutError:
            raise ConnectionFailed(f"no connection within {CONNECT_TIMEOUT_SECONDS:g} seconds") from None
        except (OSError, UnicodeError) as error:
            raise ConnectionFailed(str(error)) from error
        return made


class _Connection(asyncio.Protocol):
    """One connection, with at most one exchange at a time."""

    def __init__(self) -> None:
        self._reader = ResponseReader(self)
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[Answer] | None = None
        self._on_piece: Callable[[bytes], None] | None = None
        self._head: Head | None = None
        self._pieces: list[bytes] = []
        self.reusable = False
        """Whether the last answer left the connection open and in order."""

    async def exchange(self, message: bytes, on_piece: Callable[[bytes], None] | None) -> Answer:
        """Send `message`, and wait for the whole answer."""
        if self._transport is None:
            raise ConnectionFailed("the server closed the connection")
        self._done = asyncio.get_running_loop().create_future()
        self._on_piece, self._head, self._pieces, self.reusable = on_piece, None, [], False
        self._transport.write(message)
        return await self._done

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._reader.feed(data)
        except MalformedAnswer as error:
            self._fail(str(error))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport, self.reusable = None, False
        try:
            self._reader.end()
        except MalformedAnswer as error:
            self._fail(str(exc or error))
        self._fail(str(exc or "the server closed the connection without an answer"))

    def on_head(self, head: Head) -> None:
        """See `Receiver`."""
        if self._done is None or self._done.done():
            raise MalformedAnswer("an answer came that nobody asked for")
        self._head = head
        if self._on_piece is None or head.status != 200:
            self._on_piece = self._pieces.append

    def on_body(self, piece: bytes) -> None:
        """See `Receiver`."""
        if self._on_piece is not None:
            self._on_piece(piece)

    def on_end(self) -> None:
        """See `Receiver`."""
        head, done = self._head, self._done
        if head is not None and done is not None and not done.done():
            self.reusable = head.keep_alive and self._transport is not None
            done.set_result(Answer(head.status, head.headers, b"".join(self._pieces)))

    def _fail(self, reason: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionFailed(reason, began=self._head is not None))
