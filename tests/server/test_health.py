"""/health tells the truth: false for an engine that hangs, true for one that is busy, idle or slow."""

import threading
import time

import pytest

from headrace.server import progress
from headrace.server.progress import BASE_SECONDS, SECONDS_PER_TOKEN, Progress
from headrace.wire.heartbeat import Heartbeat

HANGING = BASE_SECONDS + 1.0


@pytest.fixture
def heartbeat(tmp_path):
    beating = Heartbeat(tmp_path / "heartbeat", create=True)
    yield beating
    beating.close()


class TestProgress:
    def test_an_engine_with_work_must_move(self, heartbeat):
        judge, now = Progress(heartbeat), heartbeat.read().at
        assert judge.seconds_late(now + 1.0) == 0.0
        assert judge.seconds_late(now + HANGING) == pytest.approx(HANGING)
        heartbeat.beat()
        assert judge.seconds_late(heartbeat.read().at) == 0.0

    def test_its_time_runs_from_when_it_got_work(self, heartbeat):
        """An idle engine does not beat, for hours."""
        judge, now = Progress(heartbeat), heartbeat.read().at + 3_600
        judge.work_began(now)
        assert judge.seconds_late(now + 1.0) == 0.0
        assert judge.seconds_late(now + HANGING) == pytest.approx(HANGING)

    def test_a_large_step_gets_the_time_that_it_needs(self, heartbeat):
        judge = Progress(heartbeat)
        heartbeat.beat(1_000)
        now = heartbeat.read().at
        assert judge.seconds_late(now + SECONDS_PER_TOKEN * 1_000) == 0.0
        assert judge.seconds_late(now + SECONDS_PER_TOKEN * 1_000 + HANGING) > 0.0

    def test_a_slow_machine_gets_more_once_it_is_known(self, heartbeat):
        judge = Progress(heartbeat)
        heartbeat.beat(100)
        assert judge.seconds_late(heartbeat.read().at + 20.0) == 20.0
        heartbeat.beat(100)
        assert judge.seconds_late(heartbeat.read().at + 20.0) == 0.0

    def test_that_it_was_slow_once_is_forgotten(self, heartbeat):
        judge = Progress(heartbeat)
        heartbeat.beat(10)
        judge.seconds_late(heartbeat.read().at + 600.0)
        for _ in range(100):
            heartbeat.beat(10)
            judge.seconds_late(heartbeat.read().at)
        assert judge.seconds_late(heartbeat.read().at + 2 * HANGING) > 0.0


def test_an_engine_that_hangs_with_work(start_server, monkeypatch):
    monkeypatch.setattr(progress, "BASE_SECONDS", 0.3)
    server = start_server(say="x" * 100, stall_after_steps=3, options={"shutdown_timeout_seconds": 0.1})
    thread = threading.Thread(target=server.post, args=("/v1/completions", {"prompt": "a", "max_tokens": 50}))
    thread.start()
    server.wait_until(lambda: server.get("/health").status_code == 503)
    for path in ("/health", "/ready"):
        error = server.get(path).json()["error"]
        assert "no progress" in error["message"]
        assert "1 sequences open" in error["message"]
    assert server.get("/live").status_code == 200
    server.stop()
    thread.join()


def test_an_engine_that_takes_long_over_a_prompt(start_server, monkeypatch):
    monkeypatch.setattr(progress, "BASE_SECONDS", 0.3)
    server = start_server(say="x", prefill_token_seconds=0.02)
    answers = []
    prompt = {"prompt": "a" * 100}
    thread = threading.Thread(target=lambda: answers.append(server.post("/v1/completions", prompt)))
    thread.start()
    server.wait_until(lambda: server.get("/load").json()["server_load"] == 1)
    while not answers:
        assert server.get("/health").json() == {"status": "ready"}
        time.sleep(0.05)
    thread.join()
    assert answers[0].status_code == 200


def test_an_idle_engine(start_server, monkeypatch):
    monkeypatch.setattr(progress, "BASE_SECONDS", 0.1)
    server = start_server(say="x")
    time.sleep(0.5)
    assert server.get("/health").status_code == 200


def test_it_is_healthy_and_not_ready_while_it_loads(start_server):
    server = start_server(say="x", load_seconds=0.5, wait=False)
    server.wait_until(lambda: server.get("/health").status_code == 200)
    assert server.get("/health").json() == {"status": "loading"}
    assert server.get("/ready").status_code == 503
    server.wait_ready()
