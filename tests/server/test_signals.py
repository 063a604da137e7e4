"""What signals do to a server process and to the engine process behind it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
import running_server

from headrace.testing.fake_engine import Script


class Front:
    """A server process of its own, with its engine."""

    def __init__(self, directory: Path, script: Script) -> None:
        command = [sys.executable, running_server.__file__, str(directory), msgspec.json.encode(script).decode()]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port, engine_pid = map(int, self.process.stdout.readline().split())
        self.url = f"http://127.0.0.1:{port}"
        self.engine = psutil.Process(engine_pid)

    def end(self) -> tuple[int, str]:
        """Wait for the end; the exit status and what was said on stderr."""
        _, errors = self.process.communicate(timeout=15)
        return self.process.returncode, errors

    def engine_is_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.engine.is_running() or self.engine.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.02)
        return False


@pytest.fixture
def front(tokenizer_directory: Path) -> Iterator[Front]:
    tokens = [10] * 9_000
    running = Front(
        tokenizer_directory, Script(token_ids=tokens, step_seconds=0.01, max_model_len=10_000, vocab_size=259)
    )
    yield running
    running.process.kill()
    running.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_server_cleanly(front, number):
    front.process.send_signal(number)
    assert front.end() == (0, "")
    assert front.engine_is_gone(1)


def test_ctrl_c_reaches_the_front_only(front):
    assert os.getpgid(front.engine.pid) != os.getpgid(front.process.pid)


def test_an_open_stream_is_finished_before_the_end(front):
    body = {"prompt": "a", "max_tokens": 50, "stream": True}
    with httpx.stream("POST", f"{front.url}/v1/completions", json=body, timeout=10) as response:
        lines = response.iter_lines()
        next(lines)
        front.process.send_signal(signal.SIGTERM)
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    status, said = front.end()
    assert status == 0
    assert re.fullmatch(r"Finishing 1 request \(up to [0-9.]+ s\); Ctrl-C again ends at once\.\n", said)


def test_what_was_sent_before_the_signal_is_answered(front):
    """On connections that were open and idle, or that were made just then: the server has read nothing of it yet."""
    connections = [_ask(http.client.HTTPConnection(front.url[7:], timeout=10)) for _ in range(20)]
    assert {_status(connection) for connection in connections} == {200}
    connections += [http.client.HTTPConnection(front.url[7:], timeout=10) for _ in range(20)]
    for connection in connections:
        _ask(connection)
    front.process.send_signal(signal.SIGTERM)
    assert [_status(connection) for connection in connections] == [200] * 40
    status, said = front.end()
    assert status == 0
    assert re.fullmatch(r"(Finishing [0-9]+ requests? .*\n)?", said)


def _ask(connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 5}))
    return connection


def _status(connection: http.client.HTTPConnection) -> int:
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_a_second_ctrl_c_does_not_wait(front):
    body = {"prompt": "a", "max_tokens": 8_000, "stream": True}
    with httpx.stream("POST", f"{front.url}/v1/completions", json=body, timeout=10) as response:
        lines = response.iter_lines()
        next(lines)
        front.process.send_signal(signal.SIGINT)
        assert "Finishing 1 request" in front.process.stderr.readline()
        began = time.monotonic()
        front.process.send_signal(signal.SIGINT)
        status, errors = front.end()
    assert time.monotonic() - began < 2
    assert (status, errors) == (130, "")
    assert front.engine_is_gone(1)


def test_a_front_that_is_killed_leaves_no_engine(front):
    front.process.kill()
    assert front.engine_is_gone(3)
