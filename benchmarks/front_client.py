"""The reader of `front.py`, a process of its own: opens streams, counts their events, and keeps the times between them.

It reads one word a line on standard input and answers with one line of JSON: `count` for the events so far, `gaps` for
the percentiles of the seconds between two events of a stream since the last `gaps`, `said` for what the first stream
said since then, event by event, as far as it is kept; `end` to stop.
"""

import json
import selectors
import socket
import statistics
import sys
import time
from dataclasses import dataclass, field

MARK = b"data: {"
_KEPT_BYTES = 100_000


@dataclass(slots=True)
class Stream:
    """One connection. `tail` are its last bytes, where a mark may have begun."""

    connection: socket.socket
    tail: bytes = b""
    events: int = 0
    last: float = 0.0
    kept: bytearray = field(default_factory=bytearray)

    def take(self, data: bytes, now: float) -> list[float]:
        """Count the events in `data`; the gaps before them."""
        found = (self.tail + data).count(MARK)
        self.tail = data[-len(MARK) + 1 :]
        if len(self.kept) < _KEPT_BYTES:
            self.kept += data
        if not found:
            return []
        self.events += found
        gap, self.last = now - self.last, now
        return [gap] + [0.0] * (found - 1)


def request(path: str, body: dict[str, object]) -> bytes:
    """A POST as bytes."""
    raw = json.dumps(body).encode()
    fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{fields}".encode() + raw


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all are below."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


class Client:
    """Reads every stream as fast as it comes."""

    def __init__(self, port: int, count: int, body: dict[str, object]) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._gaps: list[float] = []
        self._streams = [self._open(port, body) for _ in range(count)]

    def _open(self, port: int, body: dict[str, object]) -> Stream:
        stream = Stream(socket.create_connection(("127.0.0.1", port)), last=time.monotonic())
        stream.connection.sendall(request("/v1/chat/completions", body))
        self._selector.register(stream.connection, selectors.EVENT_READ, stream)
        return stream

    def run(self) -> None:
        """Read until told to end."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._read(key.data)
                elif not self._obey(sys.stdin.readline().strip()):
                    return

    def _read(self, stream: Stream) -> None:
        data = stream.connection.recv(65_536)
        if not data:
            raise SystemExit("the server closed a stream")
        self._gaps += stream.take(data, time.monotonic())

    def _obey(self, word: str) -> bool:
        if word == "count":
            print(json.dumps({"events": sum(stream.events for stream in self._streams)}), flush=True)
        elif word == "gaps":
            gaps, self._gaps = self._gaps, []
            self._streams[0].kept.clear()
            shares = {"p50": statistics.median(gaps), "p99": percentile(gaps, 0.99), "max": max(gaps)}
            print(json.dumps(shares), flush=True)
        elif word == "said":
            print(json.dumps({"said": self._said()}), flush=True)
        return word not in ("end", "")

    def _said(self) -> list[str]:
        events = [line[6:] for line in self._streams[0].kept.splitlines() if line.startswith(MARK)]
        return [json.loads(event)["choices"][0]["delta"]["content"] for event in events[:-1]]


if __name__ == "__main__":
    Client(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])).run()
