"""Signs of life cross the process border without a message."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.wire.channel import EngineChannel, WorkerChannel
from headrace.wire.heartbeat import Heartbeat


@pytest.fixture
def front():
    channel = EngineChannel()
    yield channel
    channel.close()


def test_the_front_reads_what_the_engine_shows(front):
    worker = WorkerChannel(front.address)
    before = front.heartbeat.read()
    assert before.step_tokens == 0 and before.at <= time.monotonic()
    front.remove_directory()  # as the front does once both are connected
    worker.heartbeat.beat(512)
    assert front.heartbeat.read().step_tokens == 512
    assert before.at <= front.heartbeat.read().at <= time.monotonic()
    worker.heartbeat.beat()
    assert front.heartbeat.read().step_tokens == 0
    worker.close()
    worker.close()


def test_another_process_and_its_death_are_seen(front):
    """What a process that was killed showed last stays; its clock is ours."""
    path = str(Path(front.address).with_name("heartbeat"))
    code = (
        "import os, signal; from pathlib import Path; from headrace.wire.heartbeat import Heartbeat;"
        f"Heartbeat(Path({path!r})).beat(7); os.kill(os.getpid(), signal.SIGKILL)"
    )
    before = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode < 0
    assert front.heartbeat.read().step_tokens == 7
    assert before <= front.heartbeat.read().at <= time.monotonic()


def test_only_the_user_can_open_it(front, tmp_path):
    heartbeat = Heartbeat(tmp_path / "heartbeat", create=True)
    assert (tmp_path / "heartbeat").stat().st_mode & 0o777 == 0o600
    heartbeat.close()
    heartbeat.close()
    with pytest.raises(FileExistsError):
        Heartbeat(tmp_path / "heartbeat", create=True)
