"""The queue's bounds: what is refused, what is let in, and that every place is given back."""

import json

import pytest
from queue_simulation import Machine, Simulation, Traffic

from headrace.core.sampling_params import SamplingParams
from headrace.server.admission import Admission
from headrace.server.errors import ApiError
from headrace.server.metrics import ServerMetrics
from headrace.server.options import ServerOptions
from headrace.wire.messages import AddRequest, StepOutput

ENDLESS = "all work and no play " * 100
UNLIMITED = {"max_num_queued_reqs": 0, "max_num_queued_tokens": 0, "max_queue_time_seconds": 0.0}


def admission(**options):
    return Admission(ServerOptions(**(UNLIMITED | options)), ServerMetrics())


def request(uid, prompt_tokens=10, n=1, max_tokens=10):
    return AddRequest(list(range(uid, uid + n)), [1] * prompt_tokens, SamplingParams(n=n, max_tokens=max_tokens))


class TestAccounting:
    def test_a_body_counts_by_its_size_until_its_work_is_known(self):
        queue = admission()
        with queue.reserve(4_000) as ticket:
            assert (queue.num_waiting, queue.num_waiting_tokens) == (1, 1_000)
            queue.correct(ticket, [request(1, prompt_tokens=50, n=4, max_tokens=20), request(5)])
            assert (queue.num_waiting, queue.num_waiting_tokens) == (2, 50 + 4 * 20 + 10 + 10)
        assert (queue.num_waiting, queue.num_waiting_tokens) == (0, 0)

    def test_an_answer_counts_for_no_more_than_answers_have(self):
        """Who leaves out max_tokens gets all that the context has left, and uses little of it."""
        queue = admission()
        with queue.reserve(4) as ticket:
            queue.correct(ticket, [request(1, max_tokens=100_000)])
            assert queue.num_waiting_tokens < 1_000

    def test_what_fails_gives_its_place_back(self):
        queue = admission()
        with pytest.raises(KeyError), queue.reserve(4) as ticket:
            queue.correct(ticket, [request(1)])
            raise KeyError
        assert (queue.num_waiting, queue.num_waiting_tokens) == (0, 0)

    def test_what_has_its_first_token_waits_no_more(self):
        queue = admission()
        with queue.reserve(4) as ticket:
            queue.correct(ticket, [request(1, n=2), request(3)])
            queue.on_step(_first_tokens(2))
            assert queue.num_waiting == 1
            queue.on_step(_first_tokens(1, 3))
            assert (queue.num_waiting, queue.num_waiting_tokens) == (0, 0)


class TestLimits:
    def test_requests(self):
        queue = admission(max_num_queued_reqs=2)
        with queue.reserve(4), queue.reserve(4):
            assert queue.full
            with pytest.raises(ApiError, match="--max-num-queued-reqs is 2"):
                queue.check()
        queue.check()

    def test_tokens(self):
        queue = admission(max_num_queued_tokens=1_000)
        with queue.reserve(3_200):
            queue.check()
            with pytest.raises(ApiError, match="--max-num-queued-tokens is 1000"), queue.reserve(1_000):
                pass
            with queue.reserve(400):
                pass

    def test_all_prompts_and_all_answers_count(self):
        queue = admission(max_num_queued_tokens=1_000)
        with queue.reserve(4), queue.reserve(4) as ticket:
            with pytest.raises(ApiError, match="tokens"):
                queue.correct(ticket, [request(1, prompt_tokens=100, n=50, max_tokens=20)])
            with pytest.raises(ApiError, match="tokens"):
                queue.correct(ticket, [request(uid, prompt_tokens=100) for uid in range(10)])
            queue.correct(ticket, [request(1, prompt_tokens=100)])

    def test_what_is_larger_than_the_limit_is_let_in_where_nothing_waits(self):
        queue = admission(max_num_queued_reqs=2, max_num_queued_tokens=1_000)
        with queue.reserve(100_000) as ticket:
            queue.correct(ticket, [request(uid, prompt_tokens=10_000) for uid in range(5)])
            assert queue.num_waiting == 5
            with pytest.raises(ApiError):
                queue.check()

    def test_the_time_is_what_passes_before_its_turn_comes(self):
        """A long prompt is not shut out by its own size, but those after it are."""
        queue = admission(max_queue_time_seconds=1.0)
        refused = pytest.raises(ApiError, match="--max-queue-time is 1")
        with queue.reserve(4_000), queue.reserve(1_000_000), refused:
            queue.check()

    def test_none_is_no_limit(self):
        queue = admission()
        with queue.reserve(10**9), queue.reserve(10**9):
            queue.check()


MACHINES = {
    "slow": Machine(500, token_seconds=0.05, slots=16),
    "middling": Machine(1_500, token_seconds=0.02, slots=256),
    "fast": Machine(100_000, token_seconds=0.005, slots=256, step_tokens=8_192),
}
TRAFFIC = {
    "short": Traffic(1, prompt=50, output=50),
    "long prompts": Traffic(1, prompt=1_000, output=100),
    "long answers": Traffic(1, prompt=20, output=400, max_tokens=400),
}
LIMIT_SECONDS = 10.0


def simulate(machine: Machine, traffic: Traffic, load: float) -> tuple[Simulation, float]:
    """The simulation, and the share of what the machine can do that it did."""
    per_second = min(
        machine.prompt_tokens_per_second / traffic.prompt, machine.slots / (traffic.output * machine.token_seconds)
    )
    arrivals = Traffic(per_second * load, traffic.prompt, traffic.output, traffic.max_tokens)
    options = ServerOptions(max_queue_time_seconds=LIMIT_SECONDS, max_num_queued_reqs=0, max_num_queued_tokens=0)
    simulation = Simulation(machine, arrivals, options).run(min(120.0, 30_000 / arrivals.per_second))
    return simulation, len(simulation.waits) / simulation.now / per_second


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("traffic", TRAFFIC.values(), ids=TRAFFIC)
class TestQueueTime:
    def test_overload_does_not_make_those_wait_who_are_let_in(self, machine, traffic):
        simulation, share = simulate(machine, traffic, load=10)
        waits = simulation.waits
        assert max(waits) < 4 * LIMIT_SECONDS, "until it is known how fast the machine is"
        assert sorted(waits[len(waits) // 2 :])[int(len(waits) / 2 * 0.99) - 1] < 2.5 * LIMIT_SECONDS
        assert share > 0.85, "the machine is kept busy"
        assert all(1 <= seconds <= 60 for seconds in simulation.retry_after)

    def test_who_does_not_overload_it_is_not_refused(self, machine, traffic):
        simulation, _ = simulate(machine, traffic, load=0.5)
        assert not simulation.retry_after


@pytest.fixture
def busy(start_server):
    """One sequence runs, two wait, and that is the limit."""
    server = start_server(
        say=ENDLESS, step_seconds=0.01, max_model_len=10_000, max_num_seqs=1, options={"max_num_queued_reqs": 2}
    )
    connections = []
    for number in range(3):
        connections.append(send(server))
        server.wait_until(lambda number=number: _load(server)["server_load"] == number + 1)
        if number == 0:
            server.wait_until(lambda: _load(server)["waiting_requests"] == 0)
    yield server, connections
    for connection in connections:
        connection.close()
    server.wait_until(lambda: not any(_load(server).values()))


BODY = {"model": "fake-model", "prompt": "Hi", "max_tokens": 2_000}


def send(server, *, only_head=False, **fields):
    connection = server.raw()
    payload = json.dumps(BODY | fields).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
    connection.sendall(head if only_head else head + payload)
    return connection


class TestOverHttp:
    def test_one_too_many_is_told_when_to_come_again(self, busy):
        server, _ = busy
        response = server.post("/v1/completions", BODY)
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "queue_full")
        assert "--max-num-queued-reqs is 2" in error["message"]
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}).status_code == 429

    def test_it_is_told_so_before_its_body_is_read(self, busy):
        server, _ = busy
        with send(server, only_head=True) as connection:
            assert connection.recv(4_096).startswith(b"HTTP/1.1 429")

    def test_a_large_body_that_is_not_read_does_not_hide_the_answer(self, busy):
        server, _ = busy
        response = server.post("/v1/completions", BODY | {"user": "x" * 5_000_000})
        assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")

    def test_a_client_that_does_not_send_its_body_keeps_nobody_out(self, start_server):
        server = start_server(say="x", options={"max_num_queued_reqs": 1, "max_num_queued_tokens": 100})
        with send(server, only_head=True, user="x" * 100_000):
            assert server.post("/v1/completions", BODY | {"max_tokens": 5}).status_code == 200

    def test_it_is_not_ready_meanwhile_and_is_again_when_one_leaves(self, busy):
        server, connections = busy
        assert server.get("/ready").status_code == 503
        assert server.get("/health").status_code == 200
        connections.pop().close()
        server.wait_until(lambda: server.get("/ready").status_code == 200)
        assert _load(server)["waiting_requests"] == 1

    def test_what_runs_goes_on(self, busy):
        server, connections = busy
        for _ in range(5):
            assert server.post("/v1/completions", BODY).status_code == 429
        assert _load(server)["server_load"] == 3
        connections.pop(0).close()
        server.wait_until(lambda: _load(server)["waiting_requests"] == 1)

    def test_rejections_are_counted(self, busy):
        server, _ = busy
        before = _rejections(server)
        server.post("/v1/completions", BODY)
        assert _rejections(server) == before + 1

    def test_what_turns_out_to_be_too_much_is_refused_then(self, start_server):
        server = start_server(
            say=ENDLESS,
            step_seconds=0.01,
            max_model_len=10_000,
            max_num_seqs=1,
            options={"max_num_queued_tokens": 200},
        )
        with send(server), send(server):
            server.wait_until(lambda: _load(server)["server_load"] == 2 and _load(server)["waiting_requests"] == 1)
            response = server.post("/v1/completions", BODY | {"n": 50, "max_tokens": 10})
            assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")

    def test_bad_requests_leave_nothing_behind(self, start_server):
        server = start_server(say="x")
        for fields in ({"max_tokens": -1}, {"prompt": []}, {"prompt": "x" * 5_000}, {"model": "other"}, {"n": "x"}):
            assert server.post("/v1/completions", BODY | fields).status_code in (400, 404)
        assert not any(_load(server).values())

    def test_a_lost_engine_empties_the_queue(self, busy):
        server, _ = busy
        server.kill_engine()
        server.wait_until(lambda: not any(_load(server).values()))


def _load(server):
    return server.get("/load").json()


def _rejections(server):
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:admission_rejections_total{"))


def _first_tokens(*uids):
    return StepOutput(b"", b"", bytes(len(uids)), b"", queue_seconds=dict.fromkeys(uids, 0.0))
