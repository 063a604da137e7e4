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


class Judge(Progress):
    """Judges a `heartbeat` with a clock of its own."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        super().__init__(heartbeat)
        self._beats = heartbeat

    def late(self, seconds: float, **given: object) -> float:
        """So many seconds after the last beat."""
        return self.seconds_late(self._beats.read().at + seconds, **{"has_work": True, **given})  # type: ignore[arg-type]

    def see_step(self, tokens: int, seconds: float) -> None:
        """A step that takes so long, looked at when it is nearly over and again after it."""
        self._beats.beat(tokens)
        self.look(self._beats.read().at + seconds)
        self._beats.beat(tokens)
        self.look(self._beats.read().at)


class TestProgress:
    def test_an_engine_with_work_must_move(self, heartbeat):
        judge = Judge(heartbeat)
        assert judge.late(1.0) == 0.0
        assert judge.late(HANGING) == pytest.approx(HANGING)
        assert judge.late(HANGING, has_work=False) == 0.0

    def test_it_is_late_by_more_than_what_is_given_beyond(self, heartbeat):
        judge = Judge(heartbeat)
        assert judge.late(BASE_SECONDS + 59.0, beyond=60.0) == 0.0
        assert judge.late(BASE_SECONDS + 61.0, beyond=60.0) == pytest.approx(BASE_SECONDS + 61.0)

    def test_its_time_runs_from_when_it_got_work(self, heartbeat):
        """An idle engine does not beat, for hours."""
        judge = Judge(heartbeat)
        judge.work_began(heartbeat.read().at + 3_600)
        assert judge.late(3_601.0) == 0.0
        assert judge.late(3_600 + HANGING) == pytest.approx(HANGING)

    def test_a_step_that_hangs_is_not_excused_by_clients_that_leave_and_come(self, heartbeat):
        judge = Judge(heartbeat)
        heartbeat.beat(8)
        assert judge.late(HANGING, has_work=False) == pytest.approx(HANGING)
        judge.work_began(heartbeat.read().at + HANGING)
        assert judge.late(HANGING) == pytest.approx(HANGING)

    def test_a_large_step_gets_the_time_that_it_needs(self, heartbeat):
        judge = Judge(heartbeat)
        heartbeat.beat(1_000)
        assert judge.late(SECONDS_PER_TOKEN * 1_000) == 0.0
        assert judge.late(SECONDS_PER_TOKEN * 1_000 + HANGING) > 0.0

    @pytest.mark.parametrize(("tokens", "seconds"), [(1, 20.0), (100, 20.0), (512, 150.0)])
    def test_a_slow_machine_gets_more_once_it_is_known(self, heartbeat, tokens, seconds):
        judge = Judge(heartbeat)
        heartbeat.beat(tokens)
        assert judge.late(seconds * 1.5) > 0.0
        judge.see_step(tokens, seconds)
        assert judge.late(seconds * 1.5) == 0.0

    @pytest.mark.parametrize("stopped_seconds", [60.0, 3_600.0])
    def test_a_hang_that_was_survived_does_not_hide_the_next(self, heartbeat, stopped_seconds):
        judge = Judge(heartbeat)
        judge.see_step(8, stopped_seconds)
        assert judge.late(40.0) > 0.0
        heartbeat.beat(2_048)
        assert judge.late(progress.MAX_SECONDS + 1.0) > 0.0

    def test_a_small_step_tells_little_of_what_a_token_takes(self, heartbeat):
        judge = Judge(heartbeat)
        judge.see_step(1, BASE_SECONDS + 6.4)
        heartbeat.beat(512)
        assert judge.late(BASE_SECONDS + 512 * 0.41) > 0.0

    def test_that_it_was_slow_once_is_forgotten(self, heartbeat):
        judge = Judge(heartbeat)
        judge.see_step(10, 600.0)
        for _ in range(30):
            judge.see_step(10, 0.0)
        assert judge.late(HANGING) > 0.0

    def test_to_ask_changes_nothing(self, heartbeat):
        """Else a burst of requests would make it forget how slow the machine is."""
        judge = Judge(heartbeat)
        judge.see_step(100, 20.0)
        for _ in range(100):
            heartbeat.beat(1)
            judge.late(0.0)
        heartbeat.beat(100)
        assert judge.late(30.0) == 0.0


def test_an_engine_that_hangs_with_work(start_server, monkeypatch):
    monkeypatch.setattr(progress, "BASE_SECONDS", 0.3)
    server = start_server(say="x" * 100, stall_after_steps=3, options={"shutdown_timeout_seconds": 0.1})
    thread = threading.Thread(target=server.post, args=("/v1/completions", {"prompt": "a", "max_tokens": 50}))
    thread.start()
    server.wait_until(lambda: server.get("/health").status_code == 503)
    for path in ("/health", "/ready"):
        error = server.get(path).json()["error"]
        assert "no progress" in error["message"]
        assert "1 sequence open" in error["message"]
    refused = server.post("/v1/completions", {"prompt": "a"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "no progress" in refused.json()["error"]["message"]
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
