"""Loading, clients that leave, an engine that dies, and stopping."""

import array
import fcntl
import json
import socket
import termios
import threading
import time

import openai
import pytest

from headrace.core.errors import ErrorKind
from headrace.server.run import listen

HI = [{"role": "user", "content": "Hi"}]
ENDLESS = "all work and no play " * 100


def body(**fields):
    return {"model": "fake-model", "messages": HI, **fields}


def slow(start_server, **options):
    """A server whose answers take many seconds."""
    return start_server(say=ENDLESS, step_seconds=0.01, max_model_len=10_000, **options)


def send_raw(server, fields):
    connection = server.raw()
    payload = json.dumps(body(**fields)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
    connection.sendall(head.encode() + payload)
    return connection


def test_while_it_loads_health_is_good_and_ready_is_not(start_server):
    server = start_server(say="x", load_seconds=1.0, wait=False)
    server.wait_until(lambda: server.get("/health").status_code == 200)
    for response in (server.get("/ready"), server.post("/v1/chat/completions", body()), server.get("/v1/models")):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert "loading" in response.json()["error"]["message"]
    server.wait_ready()
    assert server.post("/v1/chat/completions", body()).status_code == 200


def test_an_engine_that_cannot_start_ends_the_server_with_its_reason(start_server):
    server = start_server(fail_start="There is not enough memory", wait=False)
    server.wait_until(lambda: server.error is not None)
    assert "There is not enough memory" in str(server.error)
    assert server.error.kind is ErrorKind.INTERNAL
    assert not server.engine.alive()


def test_whose_fault_it_is_that_the_engine_cannot_start_is_kept(start_server):
    server = start_server(fail_start="max_model_len is too large", fail_status=400, wait=False)
    server.wait_until(lambda: server.error is not None)
    assert server.error.kind is ErrorKind.INVALID_REQUEST


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"n": 3, "stream": True}, {"n": 3}], ids=str)
def test_a_client_that_leaves_frees_its_sequences(start_server, fields):
    server = slow(start_server)
    connection = send_raw(server, fields)
    server.wait_until(lambda: server.num_running == fields.get("n", 1))
    connection.close()
    server.wait_until(lambda: server.num_running == 0, seconds=2)
    assert not any(server.get("/load").json().values())


def test_closing_an_openai_stream_frees_its_sequence(start_server):
    server = slow(start_server)
    with server.client().chat.completions.create(**body(), stream=True) as stream:
        next(iter(stream))
    server.wait_until(lambda: server.num_running == 0, seconds=2)


def test_one_client_leaving_does_not_touch_another(start_server):
    server = start_server(say="abcdefghij" * 5, step_seconds=0.01)
    connection = send_raw(server, {"stream": True})
    server.wait_until(lambda: server.num_running == 1)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(server.post("/v1/chat/completions", body())))
    thread.start()
    server.wait_until(lambda: server.num_running == 2)
    connection.close()
    thread.join()
    assert answers[0].json()["choices"][0]["message"]["content"] == "abcdefghij" * 5


def test_an_engine_killed_in_mid_stream(start_server):
    server = slow(start_server, load_seconds=3.0)  # the next engine is not there before all has been asked
    stream = iter(server.client().chat.completions.create(**body(), stream=True))
    next(stream)
    server.kill_engine()
    began = time.monotonic()
    with pytest.raises(openai.APIError, match="SIGKILL"):
        list(stream)
    assert time.monotonic() - began < 2
    assert server.get("/health").status_code == 503
    assert server.get("/ready").status_code == 503
    refused = server.post("/v1/chat/completions", body())
    assert (refused.status_code, "SIGKILL" in refused.json()["error"]["message"]) == (503, True)


def test_an_engine_killed_before_a_whole_answer(start_server):
    server = slow(start_server)
    threading.Timer(0.3, server.kill_engine).start()
    response = server.post("/v1/chat/completions", body())
    assert response.status_code == 503
    assert "killed by SIGKILL" in response.json()["error"]["message"]


def test_an_error_in_mid_stream_is_an_event(start_server):
    server = start_server(say=ENDLESS, max_model_len=10_000, die_after_steps=20)
    events = server.http.post(server.url + "/v1/chat/completions", json=body(stream=True)).text.split("\n\n")
    assert events[-2] == "data: [DONE]"
    assert json.loads(events[-3].removeprefix("data: "))["error"]["type"] == "server_error"


def test_stopping_lets_open_requests_finish(start_server):
    server = start_server(say="abcdefghij" * 5, step_seconds=0.01)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(server.post("/v1/chat/completions", body())))
    thread.start()
    server.wait_until(lambda: server.num_running == 1)
    server.stop()
    thread.join()
    assert answers[0].json()["choices"][0]["message"]["content"] == "abcdefghij" * 5
    assert not server.engine.alive()


def test_stopping_ends_what_takes_too_long_with_an_error(start_server):
    server = slow(start_server, options={"shutdown_timeout_seconds": 0.2})
    stream = iter(server.client().chat.completions.create(**body(), stream=True))
    next(stream)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    with pytest.raises(openai.APIError, match="stopping"):
        list(stream)
    stopper.join()
    assert not server.engine.alive()


def waiting_bytes(connection):
    """How much lies in the connection's receive buffer."""
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, count)
    return count[0]


def wait_until_full(connection):
    """Until the buffers on the way are full, so that the server cannot write a byte more."""
    before, now = -1, waiting_bytes(connection)
    while now != before or not now:
        time.sleep(0.3)
        before, now = now, waiting_bytes(connection)


def test_a_reader_that_does_not_read_does_not_keep_the_server(start_server, caplog):
    server = start_server(
        say=ENDLESS * 10, step_seconds=0.001, max_model_len=30_000, options={"shutdown_timeout_seconds": 0.2}
    )
    with send_raw(server, {"stream": True, "n": 8, "logprobs": True, "top_logprobs": 5}) as connection:
        wait_until_full(connection)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1.9, "it took uvicorn's own deadline"
    assert [record.message for record in caplog.records if record.name.startswith("uvicorn.error")] == []


def test_a_reader_that_does_not_read_does_not_slow_another(start_server):
    server = start_server(say=ENDLESS * 10, step_seconds=0.001, max_model_len=30_000)
    connection = send_raw(server, {"stream": True, "n": 8, "logprobs": True, "top_logprobs": 5})
    wait_until_full(connection)
    began = time.monotonic()
    assert server.post("/v1/chat/completions", body(max_tokens=20)).status_code == 200
    assert time.monotonic() - began < 5
    assert server.get("/load").json()["server_load"] == 8, "the long answer was not in the way"
    connection.close()
    server.wait_until(lambda: server.num_running == 0)


def test_what_is_written_is_sent_at_once():
    """asyncio switches Nagle's algorithm off only for sockets that say they speak TCP; with it, answers take 40 ms."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
