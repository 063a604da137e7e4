"""The kernel's share of a streamed token: ready bytes, sent to each connection in a step, as `front.py` measures it.

No HTTP is spoken beyond what the client needs, no token is looked at, no event loop runs: what is left is the system
call, the network's way to the client, and waking it. No server in Python can be cheaper.
"""

import argparse
import contextlib
import socket
import time

from front_parts import WORDS, say_ready

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"chatcmpl-%032x","object":"chat.completion.chunk","created":1700000000,"model":"fake-model",'
    b'"choices":[{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":null}]}\n\n'
)


def main() -> None:
    """Send until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-seconds", type=float, required=True)
    options, _ = parser.parse_known_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setblocking(False)
    say_ready(listener)
    send_steps(listener, options.step_seconds)


def send_steps(listener: socket.socket, step_seconds: float) -> None:
    """A chunk to each connection, step after step; who has left is forgotten."""
    event = _EVENT % (0, WORDS.split()[0].encode())
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    connections: list[socket.socket] = []
    while True:
        time.sleep(step_seconds)
        with contextlib.suppress(BlockingIOError):
            while True:
                connections.append(_accepted(listener))
        for connection in connections:
            try:
                connection.send(chunk)
            except OSError:
                connections = [each for each in connections if each is not connection]


def _accepted(listener: socket.socket) -> socket.socket:
    connection, _ = listener.accept()
    connection.recv(65_536)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.send(_HEAD)
    return connection


if __name__ == "__main__":
    main()
