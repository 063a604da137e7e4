"""Clients that read slowly, or not at all: they get all there is, in order, or are let go, and others do not notice."""

import array
import asyncio
import contextlib
import fcntl
import json
import re
import socket
import termios
import time

import pytest

from headrace.server import event_stream
from headrace.server.connection import Connection

STORY = "all work and no play makes jack a dull boy. " * 50
CHAT = "/v1/chat/completions"
LARGE = {"n": 8, "logprobs": True, "top_logprobs": 5, "temperature": 1}


@pytest.fixture
def small_buffers(start_server):
    """Starts servers whose sockets hold little, so that a client that does not read is noticed soon."""

    def start(**script):
        server = start_server(**{"say": STORY, "max_model_len": 100_000, **script})
        server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        return server

    return start


@pytest.fixture
def server(small_buffers):
    return small_buffers()


def connect(server, **fields):
    """A client with a small receive buffer that has asked for a stream, and has not read of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    payload = json.dumps(
        {"model": "fake-model", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **fields}
    ).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(payload)}\r\n\r\n"
    connection.sendall(head.encode() + payload)
    return connection


def wait_until_full(connection):
    """Until what waits to be read no longer grows, so that the server is held up."""
    count, before = array.array("i", [0]), -1
    while count[0] != before or not count[0]:
        before = count[0]
        time.sleep(0.3)
        fcntl.ioctl(connection, termios.FIONREAD, count)


def read_to_end(connection):
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def events_of(answer):
    """The events of a chunked answer that is complete."""
    head, rest = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200")
    body = b""
    while True:
        size, rest = rest.split(b"\r\n", 1)
        if size == b"0":
            break
        body += rest[: int(size, 16)]
        assert rest[int(size, 16) :][:2] == b"\r\n"
        rest = rest[int(size, 16) + 2 :]
    events = body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def texts_of(events):
    texts = {}
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    return texts


@pytest.mark.parametrize(
    "fields",
    [{}, {"n": 3, "temperature": 1}, {"stop": ["never said"]}, {"return_token_ids": True}, LARGE],
    ids=["plain", "three", "stop strings", "token ids", "large"],
)
def test_who_reads_late_gets_everything_in_order(server, fields):
    with connect(server, stream_options={"include_usage": True}, **fields) as connection:
        wait_until_full(connection)
        events = events_of(read_to_end(connection))
    n = fields.get("n", 1)
    assert texts_of(events) == dict.fromkeys(range(n), STORY)
    assert events[-1]["usage"]["completion_tokens"] == n * (len(STORY) + 1)
    if "return_token_ids" in fields:
        ids = [token_id for event in events[:-1] for token_id in event["choices"][0].get("token_ids", [])]
        assert len(ids) == len(STORY) + 1
    if "logprobs" in fields:
        told = [choice["logprobs"]["content"] for event in events for choice in event["choices"] if choice["logprobs"]]
        assert sum(map(len, told)) == n * (len(STORY) + 1)


def test_who_keeps_up_gets_one_token_an_event(start_server):
    server = start_server(say="one token a byte", step_seconds=0.02)
    with connect(server) as connection:
        events = events_of(read_to_end(connection))
    assert [event["choices"][0]["delta"].get("content") for event in events[1:-1]] == list("one token a byte")


def test_a_client_that_knows_no_chunks_gets_the_stream_too(server):
    payload = json.dumps({"model": "fake-model", "prompt": "Hi", "stream": True, "max_tokens": 5}).encode()
    with server.raw() as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload)
        answer = read_to_end(connection)
    assert b"".join(re.findall(rb'"text":"(.*?)"', answer)) == b"all w"
    assert answer.count(b"data: [DONE]") == 1


def test_one_answer_that_cannot_be_made_does_not_touch_another(small_buffers, monkeypatch):
    server = small_buffers(step_seconds=0.002)
    with connect(server) as good, connect(server, logprobs=True) as bad:
        server.wait_until(lambda: server.num_running == 2)
        monkeypatch.setattr("headrace.server.chat.chat_logprobs", None)
        assert events_of(read_to_end(bad))[-1]["error"]["type"] == "server_error"
        assert texts_of(events_of(read_to_end(good))) == {0: STORY}


def test_a_slow_reader_does_not_hold_up_others(server):
    with connect(server, **LARGE) as slow:
        wait_until_full(slow)
        with connect(server) as quick:
            assert texts_of(events_of(read_to_end(quick))) == {0: STORY}


def test_who_stops_reading_is_let_go(small_buffers):
    server = small_buffers(step_seconds=0.002, options={"reader_stall_timeout_seconds": 0.5})
    with connect(server, **LARGE) as connection:
        server.wait_until(lambda: server.num_running == 8)
        server.wait_until(lambda: server.num_running == 0)
        with contextlib.suppress(ConnectionError):
            assert b"[DONE]" not in read_to_end(connection)
    assert server.get("/load").json()["server_load"] == 0


def test_what_waits_for_a_reader_is_bounded(small_buffers, monkeypatch):
    monkeypatch.setattr(event_stream, "MAX_UNTOLD_VALUES", 1_000)
    server = small_buffers(say=STORY * 20, step_seconds=0.002)
    with connect(server, **LARGE):
        server.wait_until(lambda: server.num_running == 8)
        server.wait_until(lambda: server.num_running == 0)


def test_leaving_while_held_up_frees_the_sequences(small_buffers):
    server = small_buffers(say=STORY * 20, step_seconds=0.002)
    connection = connect(server, **LARGE)
    server.wait_until(lambda: server.num_running == 8)
    wait_until_full(connection)
    assert server.num_running == 8
    connection.close()
    server.wait_until(lambda: server.num_running == 0)


def test_an_engine_lost_while_a_reader_is_held_up(small_buffers):
    server = small_buffers(say=STORY * 20, step_seconds=0.002)
    with connect(server, **LARGE) as connection:
        wait_until_full(connection)
        server.kill_engine()
        events = events_of(read_to_end(connection))
    assert "SIGKILL" in events[-1]["error"]["message"]


class Transport:
    """As much of a transport as a connection uses; `sizes` are what its buffer holds at each look."""

    def __init__(self, sizes):
        self._sizes = iter(sizes)
        self.aborted = asyncio.Event()
        self.done = asyncio.Event()

    def get_write_buffer_size(self):
        size = next(self._sizes, None)
        if size is None:
            self.done.set()
            return 0
        return size

    def abort(self):
        self.aborted.set()


async def test_who_reads_at_all_is_not_let_go():
    transport = Transport(range(100, 0, -10))
    connection = Connection(transport, stall_seconds=0.001)
    connection.on_pause()
    await transport.done.wait()
    assert not transport.aborted.is_set()
    connection.on_lost()


async def test_who_reads_nothing_is_let_go():
    transport = Transport([100, 100])
    Connection(transport, stall_seconds=0.001).on_pause()
    await asyncio.wait_for(transport.aborted.wait(), 10)
