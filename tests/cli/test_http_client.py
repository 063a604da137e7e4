"""The client of the load generator and of batches: framing cut anywhere, kept connections, bad servers."""

import asyncio
import contextlib
import itertools
import socket
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.client.address import ServerAddress
from headrace.cli.client.http import AnswerTimeout, ConnectionFailed, HttpClient
from headrace.cli.client.response import MalformedAnswer, ResponseReader
from headrace.core.errors import HeadraceError


class Recorder:
    def __init__(self):
        self.answers = []

    def on_head(self, head):
        self.answers.append([head.status, b"", False])

    def on_body(self, piece):
        self.answers[-1][1] += piece

    def on_end(self):
        self.answers[-1][2] = True


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x;note=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + body + b"0\r\nTrailer: x\r\n\r\n"


def fixed(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Words here\r\ncontent-length: %d\r\nX: 1\r\nx: 2\r\n\r\n" % (status, len(body)) + body


ANSWERS = (
    (chunked(b"data: a\n\n", b"\r\n0\r\n\r\n", b"x" * 300), [200, b"data: a\n\n\r\n0\r\n\r\n" + b"x" * 300, True]),
    (fixed(404, b'{"error": 1}'), [404, b'{"error": 1}', True]),
    (fixed(200, b""), [200, b"", True]),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + fixed(200, b"yes"), [200, b"yes", True]),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", [204, b"", True]),
)


@given(st.permutations(ANSWERS), st.lists(st.integers(0, 900)))
def test_answers_are_read_however_their_bytes_are_cut(answers, cuts):
    sent = b"".join(raw for raw, _ in answers)
    recorder = Recorder()
    reader = ResponseReader(recorder)
    places = sorted({0, *(cut for cut in cuts if cut < len(sent)), len(sent)})
    for begin, end in itertools.pairwise(places):
        reader.feed(sent[begin:end])
    reader.end()
    assert recorder.answers == [expected for _, expected in answers]


def test_a_body_without_a_length_ends_with_the_connection():
    recorder = Recorder()
    reader = ResponseReader(recorder)
    reader.feed(b"HTTP/1.0 200 OK\r\n\r\nabc")
    reader.feed(b"def")
    assert recorder.answers == [[200, b"abcdef", False]]
    reader.end()
    assert recorder.answers[0][2]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_told(data):
    with pytest.raises(MalformedAnswer):
        ResponseReader(Recorder()).feed(data)


@pytest.mark.parametrize(
    "cut", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", chunked(b"abc")[:-3]]
)
def test_an_answer_that_is_cut_is_no_answer(cut):
    reader = ResponseReader(Recorder())
    reader.feed(cut)
    with pytest.raises(MalformedAnswer):
        reader.end()


@contextmanager
def serving(*connections: list[bytes]):
    """A server that gives each connection its answers and hangs up; yields its address, and what it heard."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for answers in connections:
                with listener.accept()[0] as connection:
                    for answer in answers:
                        heard.append(connection.recv(65_536))
                        connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        yield ServerAddress.parse(f"http://127.0.0.1:{listener.getsockname()[1]}/prefix/v1"), heard


async def test_a_connection_is_kept_and_one_that_went_away_is_replaced():
    with serving([fixed(200, b"one"), fixed(200, b"two")], [fixed(200, b"three")]) as (address, heard):
        client = HttpClient(address, api_key="secret")
        bodies = []
        for _ in range(3):
            bodies.append((await client.request("POST", "/v1/x", b"{}")).body)
            await asyncio.sleep(0.05)
        client.close()
    assert bodies == [b"one", b"two", b"three"]
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /prefix/v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer secret" in head and b"\r\nContent-Length: 2" in head
    assert body == b"{}"


async def test_pieces_are_told_as_they_come_and_a_refusal_is_not_one_of_them():
    with serving([chunked(b"a", b"b"), fixed(429, b"later")]) as (address, _):
        client, pieces = HttpClient(address), []
        streamed = await client.request("POST", "/", b"{}", pieces.append)
        refused = await client.request("POST", "/", b"{}", pieces.append)
        client.close()
    assert (streamed.status, streamed.body, b"".join(pieces)) == (200, b"", b"ab")
    assert (refused.status, refused.body) == (429, b"later")


@pytest.mark.parametrize(
    ("answer", "began"),
    [(b"", False), (b"SSH-2.0\r\n", False), (fixed(200, b"abc")[:-1], True), (chunked(b"a")[:-5], True)],
)
async def test_a_connection_that_breaks_is_told(answer, began):
    with serving([answer]) as (address, _), pytest.raises(ConnectionFailed) as caught:
        await HttpClient(address).request("GET", "/")
    assert caught.value.began is began


async def test_a_request_that_is_given_up_closes_its_connection():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = HttpClient(ServerAddress.parse(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        task = asyncio.create_task(client.request("GET", "/"))
        connection, _ = await asyncio.to_thread(silent.accept)
        with connection:
            assert await asyncio.to_thread(connection.recv, 65_536)
            task.cancel()
            await asyncio.wait((task,))
            connection.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(connection.recv, 1) == b""


@pytest.mark.parametrize("part", [b"", fixed(200, b"abc")[:-1], chunked(b"a")[:-5]])
async def test_an_answer_that_is_not_whole_in_time_is_given_up(part):
    with socket.create_server(("127.0.0.1", 0)) as slow:
        address = ServerAddress.parse(f"http://127.0.0.1:{slow.getsockname()[1]}")
        task = asyncio.create_task(HttpClient(address, timeout_seconds=0.2).request("GET", "/"))
        connection, _ = await asyncio.to_thread(slow.accept)
        with connection:
            connection.sendall(part)
            with pytest.raises(AnswerTimeout, match=r"no whole answer within 0\.2 s"):
                await task
            connection.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                while await asyncio.to_thread(connection.recv, 65_536):  # its request, and then the end
                    continue


@pytest.mark.parametrize(
    ("url", "authority", "root"),
    [
        ("http://h", "h", ""),
        ("https://h/", "h", ""),
        ("http://h:8000/v1", "h:8000", ""),
        ("https://h:443/a/b/v1/", "h", "/a/b"),
        ("http://[::1]:5", "[::1]:5", ""),
    ],
)
def test_addresses(url, authority, root):
    address = ServerAddress.parse(url)
    assert (address.authority, address.root) == (authority, root)


@pytest.mark.parametrize("url", ["", "h:80", "ftp://h", "http://", "http://h:99999", "http://[::1"])
def test_what_is_no_address_is_told(url):
    with pytest.raises(HeadraceError, match="not a server's address"):
        ServerAddress.parse(url)
