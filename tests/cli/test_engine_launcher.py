"""The engine process's life, as its launcher sees it."""

import signal
import sys
import threading
import time

import pytest

from headrace.cli.engine_environment import engine_environment
from headrace.cli.engine_launcher import EngineProcess, exit_reason
from headrace.core.config import EngineConfig
from headrace.wire.channel import EngineChannel

STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stdin.read()"


@pytest.fixture
def channel():
    channel = EngineChannel()
    yield channel
    channel.close()


def start(process, channel):
    reasons: list[str] = []
    ended = threading.Event()
    process.start(channel.address, lambda reason: (reasons.append(reason), ended.set()))
    return reasons, ended


def test_it_lives_until_it_is_stopped(channel):
    process = EngineProcess(EngineConfig(), (sys.executable, "-c", "import sys; sys.stdin.read()"))
    assert not process.alive()
    reasons, ended = start(process, channel)
    assert process.alive()
    process.stop(5)
    assert not process.alive()
    assert ended.wait(5)
    assert reasons == ["it was killed by SIGTERM"]


def test_one_that_will_not_end_is_ended_by_force(channel):
    process = EngineProcess(EngineConfig(), (sys.executable, "-c", STUBBORN))
    start(process, channel)
    time.sleep(0.3)  # until it ignores the first signal
    began = time.monotonic()
    process.stop(0.3)
    assert not process.alive()
    assert time.monotonic() - began < 3


def test_stopping_what_never_started_or_has_ended_is_nothing(channel):
    process = EngineProcess(EngineConfig(), (sys.executable, "-c", ""))
    process.stop(1)
    _, ended = start(process, channel)
    assert ended.wait(10)
    process.configure(EngineConfig())
    process.stop(1)


def test_exit_reasons_are_words():
    assert exit_reason(3) == "it exited with status 3"
    assert "memory runs out" in exit_reason(-signal.SIGKILL)
    assert exit_reason(-signal.SIGSEGV) == "it was killed by SIGSEGV"


def test_modules_in_the_working_directory_are_not_imported(channel, tmp_path, monkeypatch):
    """A numpy.py of the user's own is not the engine's numpy."""
    for name in ("numpy", "http", "msgspec", "headrace"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(77)")
    monkeypatch.chdir(tmp_path)
    process = EngineProcess(EngineConfig())
    reasons, ended = start(process, channel)
    process.configure({"model": 5})  # the engine gets as far as finding this wrong
    assert ended.wait(60)
    process.stop(5)
    assert reasons == ["it exited with status 1"]


def test_what_the_user_set_stays():
    environment = engine_environment({"OMP_WAIT_POLICY": "ACTIVE", "HOME": "/x"})
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert environment["HOME"] == "/x"
    assert int(environment["OMP_NUM_THREADS"]) >= 1
    assert engine_environment({})["OMP_WAIT_POLICY"] == "PASSIVE"
