"""A client of few moving parts, for thousands of requests at once: one bare connection each, closed after the answer.

What counts is when things happen, so every request keeps its times (`time.monotonic`).
"""

import asyncio
import json
import socket
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

DONE = b"data: [DONE]\n\n"


@dataclass
class Sent:
    """A request on its way, and what has come of its answer so far. Times are 0.0 until it happens."""

    body: dict[str, object]
    began: float
    headed: float = 0.0
    first_byte: float = 0.0
    ended: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    received: bytearray = field(default_factory=bytearray)
    error: OSError | None = None

    @property
    def num_chunks(self) -> int:
        """Events with a choice that have come."""
        return self.received.count(b'"choices":[{')

    @property
    def complete(self) -> bool:
        """Whether a whole answer without an error came."""
        if self.status != 200 or self.error is not None:
            return False
        if self.body.get("stream"):
            return DONE in self.received and b'data: {"error"' not in self.received
        return b'"usage"' in self.received

    @property
    def told_error(self) -> bool:
        """Whether it ended with an error, before the first byte of a stream or as its last event."""
        if self.status == 200:
            return b'data: {"error"' in self.received and DONE in self.received
        return self.status >= 400 and b'{"error"' in self.received


class RawClient:
    """Sends completion requests to the server at `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port

    def start(self, body: dict[str, object]) -> "tuple[Sent, asyncio.Task[None]]":
        """Send a request; the task ends with the answer. Cancelling it closes the connection."""
        sent = Sent(body, time.monotonic())
        return sent, asyncio.create_task(self._exchange(sent))

    async def ask(self, body: dict[str, object]) -> Sent:
        """Send a request and wait for the end of the answer."""
        sent, task = self.start(body)
        await task
        return sent

    async def connect(self, body: dict[str, object]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request, and leave reading to the caller, who does not have to. Little is buffered on this side."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (self._host, self._port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=1_024)
        writer.write(_encode(body))
        await writer.drain()
        return reader, writer

    async def _exchange(self, sent: Sent) -> None:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            writer.write(_encode(sent.body))
            await self._read(reader, sent)
        except OSError as error:
            sent.error = error
        finally:
            sent.ended = time.monotonic()
            if writer is not None:
                writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, sent: Sent) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        sent.headed = time.monotonic()
        status, *lines = head.decode().split("\r\n")
        sent.status = int(status.split()[1])
        sent.headers = dict(line.lower().split(": ", 1) for line in lines if line)
        while part := await reader.read(65_536):
            sent.first_byte = sent.first_byte or time.monotonic()
            sent.received += part


def _encode(body: dict[str, object]) -> bytes:
    payload = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(payload)}"
    return f"{head}\r\n\r\n".encode() + payload


def prompt(number: int, tokens: int = 16) -> list[int]:
    """Token ids that differ from those of other numbers from the first one on, so that no prefix is shared."""
    return [1_000 + number * 7 % 20_000] + [500 + (number + position) % 3_000 for position in range(tokens - 1)]
