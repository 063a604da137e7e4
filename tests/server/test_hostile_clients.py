"""Clients that send too much, too slowly, half, or no HTTP at all: over bare sockets, with both parsers."""

import contextlib
import importlib
import json
import logging
import re
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from running_server import starting_servers

COMPLETIONS = "/v1/completions"
CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""For localhost, signed by itself, with its key; for these tests only."""

FAST = {"request_header_timeout_seconds": 0.5, "request_body_timeout_seconds": 0.5}


@pytest.fixture(scope="module", params=["httptools", "h11"])
def parser(request):
    """Which parser uvicorn uses: the base install has h11 alone."""
    importlib.import_module("httptools")  # where it is not installed, h11 would be tested twice
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "h11":
            patch.setitem(sys.modules, "httptools", None)
        yield request.param


@pytest.fixture(scope="module")
def server_for_parser(parser, model_text):
    """A server with the usual settings, for tests that leave it as they found it."""
    with starting_servers(model_text) as start:
        yield start(say="x")


def head(path=COMPLETIONS, method="POST", **headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def request(body, path=COMPLETIONS, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(path, Content_Length=len(raw), **headers) + raw


def read_until_closed(connection):
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def read_answer(connection):
    """(status, JSON) of one answer with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536) or pytest.fail(f"closed after {data!r}")
    top, _, body = data.partition(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < length:
        body += connection.recv(65_536)
    return int(top.split()[1]), json.loads(body[:length])


def error_in(data):
    """(status, error) of the one answer in `data`."""
    top, _, body = data.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)["error"]


def assert_serves(server):
    assert server.post(COMPLETIONS, {"prompt": "a"}).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/comp", head()[:-2]])
def test_a_head_that_does_not_come(parser, start_server, sent):
    server = start_server(say="x", options=FAST)
    with server.raw() as connection:
        connection.sendall(sent)
        data = read_until_closed(connection)
    if sent:
        status, error = error_in(data)
        assert (status, error["type"]) == (408, "invalid_request_error")
        assert "head" in error["message"]
    else:
        assert data == b""
    assert_serves(server)


def trickle(connection):
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b"X: y\r\n")
            time.sleep(0.01)


def test_a_head_that_trickles(parser, start_server):
    server = start_server(say="x", options=FAST)
    with server.raw() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        sender = threading.Thread(target=trickle, args=(connection,))
        sender.start()
        status, _ = error_in(read_until_closed(connection))
        connection.shutdown(socket.SHUT_RDWR)
        sender.join()
    assert status == 408
    assert_serves(server)


@pytest.mark.parametrize("headers", [{"Content-Length": 100}, {"Transfer-Encoding": "chunked"}], ids=str)
@pytest.mark.parametrize("part", [b"", b"5\r\nhello\r\n"])
def test_a_body_that_does_not_come(parser, start_server, headers, part):
    server = start_server(say="x", options=FAST)
    with server.raw() as connection:
        connection.sendall(head(**headers) + part)
        status, error = error_in(read_until_closed(connection))
    assert status == 408
    assert "body" in error["message"]
    assert_serves(server)


def test_slow_but_in_time(parser, start_server):
    server = start_server(say="x")
    raw = request({"prompt": "a"})
    with server.raw() as connection:
        for octet in raw:
            connection.sendall(bytes([octet]))
        assert read_answer(connection)[0] == 200
        connection.sendall(raw)
        assert read_answer(connection)[0] == 200


def test_ten_megabytes_are_refused_before_they_are_sent(parser, server_for_parser):
    with server_for_parser.raw() as connection:
        connection.sendall(head(**{"Content-Length": 10 * 2**20}))
        status, error = error_in(read_until_closed(connection))
    assert (status, error["code"]) == (413, "request_too_large")
    assert "--max-body-bytes" in error["message"]


def send_all(connection, first, part, count):
    with contextlib.suppress(OSError):  # hung up on, which is fine
        connection.sendall(first)
        for _ in range(count):
            connection.sendall(part)


@pytest.mark.parametrize("megabytes", [10, 1024])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_on_reads_the_413(parser, server_for_parser, megabytes, chunked):
    part = b"100000\r\n" + b"x" * 2**20 + b"\r\n" if chunked else b"x" * 2**20
    size = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": megabytes * 2**20}
    with server_for_parser.raw() as connection:
        sender = threading.Thread(target=send_all, args=(connection, head(**size), part, megabytes))
        sender.start()
        status, error = read_answer(connection)
        connection.shutdown(socket.SHUT_RDWR)
        sender.join()
    assert (status, error["error"]["code"]) == (413, "request_too_large")
    assert_serves(server_for_parser)


def test_httpx_sees_the_413_of_ten_megabytes(parser, server_for_parser):
    response = server_for_parser.http.post(server_for_parser.url + COMPLETIONS, content=b"x" * 10 * 2**20)
    assert response.status_code == 413


def test_a_client_that_asks_first_is_not_asked_for_too_much(parser, server_for_parser):
    with server_for_parser.raw() as connection:
        connection.sendall(head(**{"Content-Length": 10 * 2**20, "Expect": "100-continue"}))
        assert connection.recv(20).startswith(b"HTTP/1.1 413")
    with server_for_parser.raw() as connection:
        raw = request({"prompt": "a"}, Expect="100-continue")
        top, _, body = raw.partition(b"\r\n\r\n")
        connection.sendall(top + b"\r\n\r\n")
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_answer(connection)[0] == 200


def test_what_is_refused_unread_leaves_the_connection_usable(parser, server_for_parser):
    with server_for_parser.raw() as connection:
        for _ in range(2):
            raw = request(b"x" * 1_000_000, path="/v1/nothing")
            connection.sendall(raw[:100_000])
            assert read_answer(connection)[0] == 404
            connection.sendall(raw[100_000:])
        connection.sendall(request({"prompt": "a"}))
        assert read_answer(connection)[0] == 200


@pytest.mark.parametrize(
    "bomb",
    [b"X-Long: " + b"a" * 200_000, b"\r\n".join(b"X-%d: a" % number for number in range(20_000))],
    ids=["long", "many"],
)
def test_header_bombs(parser, server_for_parser, bomb):
    with server_for_parser.raw() as connection:
        send_all(connection, b"GET /health HTTP/1.1\r\nHost: localhost\r\n", bomb + b"\r\n\r\n", 1)
        status, error = error_in(read_until_closed(connection))
    assert (status, error["type"]) == (431, "invalid_request_error")
    assert_serves(server_for_parser)


@pytest.mark.parametrize(("version", "status"), [("1.1", b"400"), ("1.0", b"200")])
def test_http_1_1_needs_a_host(parser, server_for_parser, version, status):
    with server_for_parser.raw() as connection:
        connection.sendall(f"GET /live HTTP/{version}\r\nConnection: close\r\n\r\n".encode())
        answer = read_until_closed(connection)
    assert answer.split()[1] == status
    assert (b"Host" in answer) == (status == b"400")


def test_a_head_that_never_ends(parser, server_for_parser):
    with server_for_parser.raw() as connection:
        send_all(connection, b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"X: " + b"a" * 10_000 + b"\r\n", 200)
        status, _ = error_in(read_until_closed(connection))
    assert status == 431


@pytest.mark.parametrize("bomb", [b"X: " + b"a" * 10_000 + b"\r\n", b"a" * 10_000], ids=["many", "long"])
@pytest.mark.parametrize(("path", "method", "status"), [("/live", "GET", 200), (COMPLETIONS, "POST", 431)])
def test_trailers_that_never_end(parser, server_for_parser, path, method, status, bomb):
    start = head(path, method, Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\nX: "
    with server_for_parser.raw() as connection:
        send_all(connection, start, bomb, 50)
        answered = int(read_until_closed(connection).split()[1])
    assert answered in (status, 431)  # a route that needs no body may answer before there are too many
    assert_serves(server_for_parser)


def test_trailers_are_taken_and_not_read(parser, server_for_parser):
    body = b'd\r\n{"prompt":"a"\r\n1\r\n}\r\n0\r\nContent-Type: text/plain\r\nX: y\r\n\r\n'
    with server_for_parser.raw() as connection:
        for _ in range(2):
            connection.sendall(head(Transfer_Encoding="chunked") + body)
            assert read_answer(connection)[0] == 200


def bytes_taken(connection, part, count):
    """How much of `count` times `part` can be sent before nobody takes more for a while."""
    connection.settimeout(1)
    taken = 0
    with contextlib.suppress(OSError):
        while taken < count * len(part):
            taken += connection.send(part)
    return taken


def test_a_head_that_grows_while_the_answer_before_it_is_sent(parser, start_server):
    server = start_server(say="abcdefghij" * 5, step_seconds=0.1, max_model_len=10_000)
    with server.raw() as connection:
        connection.sendall(request({"prompt": "a", "stream": True, "max_tokens": 50}) + b"GET /live HTTP/1.1\r\nX: ")
        unread = bytes_taken(connection, b"a" * 2**20, 32) < 16 * 2**20
        assert unread or b"[DONE]" not in read_until_closed(connection), "32 MB were kept"
    assert_serves(server)


def test_many_short_headers_are_fine(parser, server_for_parser):
    headers = {f"X-{number}": "a" * 100 for number in range(100)}
    assert server_for_parser.http.get(server_for_parser.url + "/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),  # somebody speaks TLS to us
        b"GET /health HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /h\xc3\xa4lth HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"G@T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=range(9),
)
def test_what_is_no_http(parser, server_for_parser, sent):
    with server_for_parser.raw() as connection:
        connection.sendall(sent)
        status, error = error_in(read_until_closed(connection))
    assert 400 <= status < 500
    assert error["type"] == "invalid_request_error"
    assert_serves(server_for_parser)


@pytest.mark.parametrize("hosts", [["localhost", "localhost"], ["localhost", "elsewhere"], []])
def test_a_request_has_one_host(parser, server_for_parser, hosts):
    fields = "".join(f"Host: {host}\r\n" for host in hosts)
    with server_for_parser.raw() as connection:
        connection.sendall(f"GET /health HTTP/1.1\r\nConnection: close\r\n{fields}\r\n".encode())
        status, error = error_in(read_until_closed(connection))
    assert (status, "Host header" in error["message"]) == (400, True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_shuts_its_sending_side_gets_its_answer(parser, start_server, stream):
    server = start_server(say="abcdefghij", step_seconds=0.1)
    with server.raw() as connection:
        connection.sendall(request({"prompt": "a", "stream": stream}))
        connection.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        data = read_until_closed(connection).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    assert data.startswith(b"HTTP/1.1 200")
    assert (
        b"[DONE]" in data
        if stream
        else json.loads(data.partition(b"\r\n\r\n")[2])["choices"][0]["text"] == "abcdefghij"
    )
    assert time.monotonic() - began < 4, "the connection was closed by its keep-alive timeout, not by its end"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_is_gone_is_told_from_one_that_shut_its_sending_side(parser, start_server, stream):
    server = start_server(say="abcdefghij" * 100, step_seconds=0.05, max_model_len=10_000)
    connection = server.raw()
    connection.sendall(request({"prompt": "a", "stream": stream, "max_tokens": 1_000}))
    server.wait_until(lambda: server.num_running == 1)
    connection.close()
    server.wait_until(lambda: server.num_running == 0, seconds=5)


def test_a_client_that_shut_its_sending_side_is_asked_between_events_too(parser, start_server):
    """In a stream that has begun and says nothing for long, comments find out whether the client is there."""
    server = start_server(say="ab", step_seconds=1.5)
    with server.raw() as connection:
        connection.sendall(request({"prompt": "a", "stream": True}))
        connection.shutdown(socket.SHUT_WR)
        events = read_until_closed(connection).partition(b"text/event-stream")[2]
    assert events.count(b"\r\n3\r\n:\n\n\r\n") >= 2
    assert events.count(b"data: ") == 4


def test_half_a_request_and_then_nothing_more(parser, server_for_parser):
    with server_for_parser.raw() as connection:
        connection.sendall(head(**{"Content-Length": 100}) + b"{")
        connection.shutdown(socket.SHUT_WR)
        assert read_until_closed(connection) == b""


def test_requests_in_a_pipeline_are_answered_in_order(parser, server_for_parser):
    with server_for_parser.raw() as connection:
        models = head("/v1/models", "GET")
        connection.sendall(request({"prompt": "a"}) + models + request({"prompt": "b", "x": 1}) + models)
        connection.shutdown(socket.SHUT_WR)
        data = read_until_closed(connection).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    parts = data.split(b"HTTP/1.1 ")[1:]
    assert [part[:3] for part in parts] == [b"200", b"200", b"400", b"200"]
    assert [b"text_completion" in part for part in parts] == [True, False, False, False]


@pytest.fixture
def logged(caplog):
    """Begin to note what uvicorn logs, whose records go no further; gives back where."""

    def watch():
        logging.getLogger("uvicorn.error").addHandler(caplog.handler)
        return caplog.records

    yield watch
    logging.getLogger("uvicorn.error").removeHandler(caplog.handler)


def test_a_body_that_does_not_come_waits_for_its_turn(parser, start_server, logged):
    """The second request's deadline begins after the first one's answer, which it must not touch."""
    server = start_server(say="abcdefghij" * 2, step_seconds=0.1, options=FAST)
    records = logged()
    with server.raw() as connection:
        connection.sendall(request({"prompt": "a", "stream": True, "max_tokens": 20}) + head(Content_Length=100) + b"{")
        data = read_until_closed(connection)
    server.stop()
    first, _, second = data.partition(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert (first[:12], first.count(b"data: ")) == (b"HTTP/1.1 200", 20)
    assert error_in(second)[0] == 408
    assert [record.message for record in records if record.levelname == "ERROR"] == []


def test_a_client_that_leaves_with_requests_in_a_pipeline(parser, start_server, logged):
    server = start_server(say="abcdefghij" * 100, step_seconds=0.05, max_model_len=10_000)
    records = logged()
    with server.raw() as connection:
        connection.sendall(request({"prompt": "a", "max_tokens": 1_000}) + head("/v1/models", "GET"))
        server.wait_until(lambda: server.num_running == 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    server.wait_until(lambda: server.num_running == 0)
    server.stop()
    assert [record.message for record in records if record.levelname == "ERROR"] == []


def test_garbage_after_a_request_does_not_touch_its_answer(parser, start_server):
    server = start_server(say="abcdefghij", step_seconds=0.05)
    with server.raw() as connection:
        connection.sendall(request({"prompt": "a"}) + b"garbage\r\n\r\n")
        data = read_until_closed(connection)
    assert [part[:3] for part in re.split(rb"(?:^|(?<=}))HTTP/1.1 ", data)[1:]] in ([b"200", b"400"], [b"400"])
    assert_serves(server)


@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PUT", "PATCH", "TRACE", "PROPFIND"])
def test_methods_that_are_not_served(server, method):
    response = server.http.request(method, server.url + COMPLETIONS)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert response.json()["error"]["code"] == "method_not_allowed"


def test_head_is_get_without_the_body(server):
    for path in ("/health", "/v1/models", "/openapi.json"):
        response, whole = server.http.head(server.url + path), server.get(path)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "\xff"]
)
def test_other_types_than_json_are_refused(server, content_type):
    headers = {"Content-Type": content_type.encode("latin-1")}
    response = server.http.post(server.url + COMPLETIONS, content=b'{"prompt": "a"}', headers=headers)
    assert (response.status_code, response.json()["error"]["type"]) == (415, "invalid_request_error")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
def test_json_by_any_name_is_taken(server, content_type):
    headers = {"Content-Type": content_type}
    response = server.http.post(server.url + COMPLETIONS, content=b'{"prompt": "a"}', headers=headers)
    assert response.status_code == 200


def test_https(start_server):
    server = start_server(say="x" * 10, wait=False, options={"ssl_certfile": str(CERTIFICATE)})
    url = server.url.replace("http://127.0.0.1", "https://localhost")
    with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=CERTIFICATE), timeout=20) as client:
        server.wait_until(lambda: client.get("/ready").status_code == 200)
        answer = client.post(COMPLETIONS, json={"prompt": "a", "stream": True})
        assert answer.text.endswith("data: [DONE]\n\n")
        assert client.post(COMPLETIONS, content=b"x" * 10 * 2**20).status_code == 413
