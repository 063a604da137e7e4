"""An engine that is lost: what its requests get, how the next one is started, and when there is none."""

import asyncio
import errno
import json
import os
import tempfile
import threading

import openai
import psutil
import pytest
from running_server import FakeEngineProcess

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server import engine_supervisor, progress
from headrace.server.engine_life import EngineLife
from headrace.server.restarts import WINDOW_SECONDS, RestartBudget
from headrace.testing.fake_engine import Script
from headrace.wire.channel import WorkerChannel
from headrace.wire.messages import EngineStats

HI = [{"role": "user", "content": "Hi"}]
ENDLESS = "all work and no play " * 100


def body(**fields):
    return {"model": "fake-model", "messages": HI, "max_tokens": 1_000, **fields}


def ask(server, **fields):
    return server.post("/v1/chat/completions", body(**fields))


def slow(start_server, **options):
    """A server whose answers take many seconds."""
    return start_server(say=ENDLESS, step_seconds=0.01, max_model_len=10_000, **options)


def lose_engine(server):
    """Kill it, and wait until it is known why it is gone."""
    server.kill_engine()
    server.wait_until(lambda: "SIGKILL" in server.get("/health").text)


def script_of(server, **changes):
    """From now on engines play another script."""
    server.engine._script = Script(**changes)


class TestComingBack:
    @pytest.mark.parametrize("fields", [{}, {"n": 3}], ids=str)
    def test_open_requests_end_with_the_reason(self, start_server, fields):
        server = slow(start_server)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(server, **fields))) for _ in range(3)]
        for thread in threads:
            thread.start()
        server.wait_until(lambda: server.num_running == 3 * fields.get("n", 1))
        server.kill_engine()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {503}
        assert all("killed by SIGKILL" in answer.json()["error"]["message"] for answer in answers)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)

    def test_that_it_is_lost_and_back_is_in_the_log(self, start_server, caplog):
        server = start_server(say="Hello")
        lose_engine(server)
        server.wait_until(lambda: len(caplog.messages) >= 2)
        assert "SIGKILL" in caplog.messages[0] and caplog.messages[0].endswith("It is started again.")
        assert caplog.messages[1].startswith("Ready again after ")

    def test_the_next_engine_serves(self, start_server):
        server = start_server(say="Hello")
        for lost in (1, 2):
            lose_engine(server)
            server.wait_ready()
            assert server.get("/health").json() == {"status": "ready"}
            assert ask(server, max_tokens=20).json()["choices"][0]["message"]["content"] == "Hello"
            assert _restarts(server) == lost

    def test_meanwhile_requests_are_told_why_and_when(self, start_server):
        server = start_server(say="x", load_seconds=1.0)
        lose_engine(server)
        for response in (ask(server), server.get("/health"), server.get("/ready")):
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            assert "SIGKILL" in response.json()["error"]["message"]
        assert server.get("/live").status_code == 200
        server.wait_ready()

    def test_nothing_of_the_lost_engine_counts_any_more(self, start_server):
        server = slow(start_server)
        thread = threading.Thread(target=ask, args=(server,))
        thread.start()
        server.wait_until(lambda: server.num_running == 1)
        server.kill_engine()
        thread.join()
        assert server.num_running == 0
        assert not any(server.get("/load").json().values())
        server.wait_ready()

    def test_what_the_lost_engine_had_is_not_given_to_the_next(self, start_server):
        """Else a request that kills an engine would kill each, though it was sent once."""
        server = slow(start_server)
        thread = threading.Thread(target=ask, args=(server,))
        thread.start()
        server.wait_until(lambda: server.num_running == 1)
        server.kill_engine()
        thread.join()
        server.wait_ready()
        assert ask(server, max_tokens=1).status_code == 200
        server.wait_until(lambda: server.client_state.client.stats.steps > 0)
        assert server.num_running == 0

    def test_nothing_is_leaked(self, start_server, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        server = start_server(say="x", options={"max_engine_restarts": 100})
        this = psutil.Process()
        lose_engine(server)
        server.wait_ready()
        before = (this.num_fds(), threading.active_count())
        for _ in range(2):
            lose_engine(server)
            server.wait_ready()
        server.wait_until(lambda: _children(this, server) == 1)
        server.wait_until(lambda: (this.num_fds(), threading.active_count()) <= before)
        assert not list(tmp_path.iterdir())

    def test_a_step_that_fails_is_a_lost_engine(self, start_server):
        server = slow(start_server, fail_after_steps=5)
        with pytest.raises(openai.APIError, match="A step of the engine failed"):
            list(server.client().chat.completions.create(**body(), stream=True))
        server.wait_ready()

    def test_an_engine_that_hangs_is_started_again_if_that_is_asked_for(self, start_server, monkeypatch):
        monkeypatch.setattr(progress, "BASE_SECONDS", 0.2)
        server = start_server(
            say=ENDLESS, max_model_len=10_000, stall_after_steps=5, options={"engine_hang_timeout_seconds": 0.5}
        )
        answer = ask(server)
        assert (answer.status_code, "no progress" in answer.json()["error"]["message"]) == (503, True)
        server.wait_ready()


class TestGivingUp:
    def test_a_request_that_kills_each_engine_does_not_do_so_forever(self, start_server):
        server = slow(start_server, die_after_steps=3, options={"max_engine_restarts": 1})
        for _ in range(2):
            server.wait_ready()
            assert ask(server).status_code == 503
        server.wait_until(lambda: server.error is not None)
        assert "killed by SIGKILL" in str(server.error)
        assert "--max-engine-restarts is 1" in str(server.error)
        assert server.error.kind is ErrorKind.INTERNAL
        assert not server.engine.alive()

    def test_engines_that_do_not_get_ready_are_lost_too(self, start_server):
        server = start_server(say="x", options={"max_engine_restarts": 2})
        script_of(server, die_while_loading=True)
        server.kill_engine()
        server.wait_until(lambda: server.error is not None)
        assert "--max-engine-restarts is 2" in str(server.error)

    def test_engines_that_hang_while_they_load_are_lost_too(self, start_server, monkeypatch):
        monkeypatch.setattr(engine_supervisor, "MIN_RESTART_SECONDS", 0.5)
        server = start_server(say="x", options={"max_engine_restarts": 1})
        script_of(server, load_seconds=1_000.0)
        server.kill_engine()
        server.wait_until(lambda: server.error is not None)
        assert "not ready within" in str(server.error)
        assert "--max-engine-restarts is 1" in str(server.error)

    def test_the_first_start_may_take_long(self, start_server, monkeypatch):
        monkeypatch.setattr(engine_supervisor, "MIN_RESTART_SECONDS", 0.0)
        server = start_server(say="x", load_seconds=1.0)
        lose_engine(server)
        server.wait_ready()

    def test_what_the_system_says_of_loading_is_told(self, start_server, monkeypatch):
        def load(launcher):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/models/x")

        monkeypatch.setattr(FakeEngineProcess, "load", load)
        server = start_server(say="x", wait=False)
        server.wait_until(lambda: server.error is not None)
        assert isinstance(server.error, HeadraceError)
        assert "No space left on device: '/models/x'" in str(server.error)

    def test_a_process_that_cannot_be_started_is_lost_too(self, start_server):
        server = start_server(say="x", options={"max_engine_restarts": 1})
        server.engine._command = ("/no/such/program",)
        server.kill_engine()
        server.wait_until(lambda: server.error is not None)
        assert "could not be started" in str(server.error)

    def test_an_engine_that_dies_in_its_first_start_is_not_started_again(self, start_server):
        server = start_server(say="x", die_while_loading=True, wait=False)
        server.wait_until(lambda: server.error is not None)
        assert "killed by SIGKILL" in str(server.error)
        assert "max-engine-restarts" not in str(server.error)

    def test_what_no_restart_can_change_ends_the_server_at_once(self, start_server):
        server = start_server(say="x")
        script_of(server, fail_start="The model is gone", fail_status=400)
        server.kill_engine()
        server.wait_until(lambda: server.error is not None)
        assert "The model is gone" in str(server.error)
        assert server.error.kind is ErrorKind.INTERNAL

    def test_none_are_started_again_where_none_may_be(self, start_server):
        server = start_server(say="x", options={"max_engine_restarts": 0})
        server.kill_engine()
        server.wait_until(lambda: server.error is not None)

    def test_an_engine_that_is_lost_while_the_server_stops_stays_lost(self, start_server):
        server = slow(start_server)
        stream = iter(server.client().chat.completions.create(**body(), stream=True))
        next(stream)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        server.wait_until(lambda: server.client_state.client.draining)
        server.kill_engine()
        with pytest.raises(openai.APIError, match="SIGKILL"):
            list(stream)
        stopper.join()
        assert server.error is None
        assert not server.engine.alive()


class SilentLauncher:
    """Starts nothing: the test plays the engine."""

    def start(self, address, on_exit):
        self.address = address

    def alive(self):
        return True

    def stop(self, grace_seconds):
        pass


def test_what_an_engine_says_after_it_was_given_up_does_not_count():
    async def give_up():
        said, launcher = [], SilentLauncher()
        life = EngineLife(launcher, said.append, lambda _: None)
        assert life.start()
        worker = WorkerChannel(launcher.address)
        try:
            worker.send(EngineStats(steps=1))
            while not said:
                await asyncio.sleep(0.01)
            life.end(HeadraceError("It hangs"))
            worker.send(EngineStats(steps=2))
            await asyncio.sleep(0.2)
            return said
        finally:
            worker.close()
            await life.close()

    assert [stats.steps for stats in asyncio.run(asyncio.wait_for(give_up(), 20))] == [1]


class TestRestartBudget:
    def test_pauses_grow(self):
        budget = RestartBudget(8)
        assert [budget.take(0.0) for _ in range(9)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, None]

    def test_old_restarts_are_forgotten(self):
        budget = RestartBudget(1)
        assert budget.take(0.0) == 0.0
        assert budget.take(WINDOW_SECONDS - 1) is None
        assert budget.take(WINDOW_SECONDS) == 0.0


def _restarts(server):
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("headrace:engine_restarts_total{"))


def _children(this, server):
    """How many children this process has, besides those of other tests' servers."""
    return sum(each.pid == server.engine.pid or each.status() == psutil.STATUS_ZOMBIE for each in this.children())


def test_an_event_of_a_stream_says_why(start_server):
    server = slow(start_server)
    events = []

    def read():
        with server.http.stream("POST", server.url + "/v1/chat/completions", json=body(stream=True)) as response:
            events.extend(line for line in response.iter_lines() if line)

    thread = threading.Thread(target=read)
    thread.start()
    server.wait_until(lambda: server.num_running == 1)
    server.wait_until(lambda: events)
    server.kill_engine()
    thread.join()
    assert events[-1] == "data: [DONE]"
    assert "SIGKILL" in json.loads(events[-2].removeprefix("data: "))["error"]["message"]
