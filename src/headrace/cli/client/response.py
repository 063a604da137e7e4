"""Reads HTTP/1.1 answers from the bytes of a connection (RFC 9112), without doing any input itself.

Made for streams of many small chunks: a chunk that arrives whole costs a find, two slices and a call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

MAX_HEAD_BYTES = 64 * 1_024
MAX_LINE_BYTES = 1_024


class MalformedAnswer(Exception):
    """What came is not HTTP, or ends in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; header names are in lower case, repeated ones joined by commas."""

    status: int
    headers: Mapping[str, str]
    keep_alive: bool


class Receiver(Protocol):
    """Whoever an answer is for; the calls come in this order."""

    def on_head(self, head: Head) -> None:
        """The answer begins."""

    def on_body(self, piece: bytes) -> None:
        """A part of its body, as it arrived."""

    def on_end(self) -> None:
        """The answer is complete."""


class ResponseReader:
    """Takes the bytes of one connection, and tells `receiver` of one answer after the other."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = b""
        self._remaining = 0
        self._read: Callable[[], bool] = self._read_head

    def feed(self, data: bytes) -> None:
        """Read what has arrived. Raises `MalformedAnswer`."""
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer and self._read():
            continue

    def end(self) -> None:
        """The connection has ended, which may end the answer. Raises `MalformedAnswer` if it is in its middle."""
        if self._read == self._read_until_close:
            self._finish()
        elif self._buffer or self._read != self._read_head:
            raise MalformedAnswer("the connection ended in mid-answer")

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES or not b"HTTP/1."[: len(self._buffer)] == self._buffer[:7]:
                raise MalformedAnswer(f"it does not speak HTTP: {self._buffer[:40]!r}")
            return False
        head, self._buffer = _parse_head(self._buffer[:end]), self._buffer[end + 4 :]
        if head.status >= 200:  # 100 Continue and the like come before the answer
            self._receiver.on_head(head)
            self._begin_body(head)
        return True

    def _begin_body(self, head: Head) -> None:
        length = head.headers.get("content-length", "")
        if head.status in (204, 304):
            self._finish()
        elif "chunked" in head.headers.get("transfer-encoding", "").lower():
            self._read = self._read_chunk_head
        elif length:
            self._remaining = _number(length.encode(), 10)
            self._read = self._read_fixed
            if not self._remaining:
                self._finish()
        else:
            self._read = self._read_until_close

    def _read_fixed(self) -> bool:
        self._take()
        if not self._remaining:
            self._finish()
        return True

    def _read_until_close(self) -> bool:
        piece, self._buffer = self._buffer, b""
        self._receiver.on_body(piece)
        return False

    def _read_chunk_head(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self._remaining = _number(line.partition(b";")[0].strip(), 16)
        self._read = self._read_chunk if self._remaining else self._read_trailers
        return True

    def _read_chunk(self) -> bool:
        self._take()
        if not self._remaining:
            self._read = self._read_chunk_end
        return True

    def _read_chunk_end(self) -> bool:
        line = self._line()
        if line:
            raise MalformedAnswer(f"a chunk is longer than it said: {line[:40]!r}")
        if line is not None:
            self._read = self._read_chunk_head
        return line is not None

    def _read_trailers(self) -> bool:
        line = self._line()
        if line == b"":
            self._finish()
        return line is not None

    def _take(self) -> None:
        """Hand on as much of the body as is there and belongs to it."""
        piece, self._buffer = self._buffer[: self._remaining], self._buffer[self._remaining :]
        self._remaining -= len(piece)
        self._receiver.on_body(piece)

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise MalformedAnswer(f"a line of the framing does not end: {self._buffer[:40]!r}")
            return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _finish(self) -> None:
        self._read = self._read_head
        self._receiver.on_end()


def _parse_head(raw: bytes) -> Head:
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdigit():
        raise MalformedAnswer(f"it does not speak HTTP: {first[:40]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    closes = "close" in headers.get("connection", "").lower() or version == "HTTP/1.0"
    return Head(int(status), headers, keep_alive=not closes)


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base) if text.isalnum() else -1
    except ValueError:
        number = -1
    if number < 0:
        raise MalformedAnswer(f"{text[:40]!r} is not a length")
    return number
