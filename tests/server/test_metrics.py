"""Each counter moves by exactly what happened, seen through a real server; the fake engine's part is known."""

import contextlib
import time
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest
from running_server import RunningServer, StartServer
from scraped import scrape

HTTP = "headrace:http_responses_total"
PROMPT = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]

ONE_SEQUENCE = {
    "vllm:time_to_first_token_seconds_count": 1,
    "vllm:request_success_total{stop}": 1,
    "vllm:e2e_request_latency_seconds_count": 1,
    "vllm:request_queue_time_seconds_count": 1,
    "vllm:request_inference_time_seconds_count": 1,
    "vllm:request_prefill_time_seconds_count": 1,
    "vllm:request_decode_time_seconds_count": 1,
    "vllm:request_prompt_tokens_count": 1,
    "vllm:request_prompt_tokens_sum": 10,
    "vllm:request_prefill_kv_computed_tokens_count": 1,
    "vllm:request_prefill_kv_computed_tokens_sum": 5,
    "vllm:request_num_preemptions_count": 1,
}
"""What a finished sequence with `PROMPT` moves by itself."""

ONE_PROMPT = {
    "headrace:submitted_requests_total": 1,
    "headrace:submitted_prompt_tokens_total": 10,
    "vllm:prompt_tokens_total": 10,
    "vllm:prompt_tokens_by_source_total{local_compute}": 5,
    "vllm:prompt_tokens_by_source_total{local_cache_hit}": 5,
    "vllm:prompt_tokens_cached_total": 5,
    "vllm:prompt_tokens_cached_by_source_total{device}": 5,
}
"""What `PROMPT` moves when its first token comes. The fake engine says that it has half of any prompt in its cache."""

ONE_LOOK_UP = {
    "vllm:prefix_cache_queries_total": 10,
    "vllm:prefix_cache_hits_total": 5,
    "vllm:gpu_prefix_cache_queries_total": 10,
    "vllm:gpu_prefix_cache_hits_total": 5,
}


def four_tokens_one_by_one() -> dict[str, float]:
    """What is moved by a sequence of four tokens that runs alone."""
    return {
        "vllm:generation_tokens_total": 4,
        "vllm:inter_token_latency_seconds_count": 3,
        "vllm:time_per_output_token_seconds_count": 3,
        "vllm:request_time_per_output_token_seconds_count": 1,
        "vllm:request_generation_tokens_count": 1,
        "vllm:request_generation_tokens_sum": 4,
        "vllm:request_max_num_generation_tokens_count": 1,
        "vllm:request_max_num_generation_tokens_sum": 4,
        "vllm:request_params_n_count": 1,
        "vllm:request_params_n_sum": 1,
        "vllm:request_params_max_tokens_count": 1,
        "vllm:iteration_tokens_total_count": 4,
        "vllm:iteration_tokens_total_sum": 5 + 3,
        "headrace:engine_steps_total": 4,
    }


class Watched:
    """A server, and how its counters have moved since it was taken here. Sums of seconds are left out."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self._before = scrape(server.url)

    def moved(self) -> dict[str, float]:
        changed = scrape(self.server.url).changed_since(self._before)
        return {name: by for name, by in changed.items() if not name.endswith("_seconds_sum")}

    def expect(self, expected: dict[str, float]) -> None:
        """These have moved, and nothing else."""
        _expect(self.moved, expected)

    def expect_these(self, expected: dict[str, float]) -> None:
        """These have moved; others may have moved too."""

        def moved() -> dict[str, float]:
            every = self.moved()
            return {name: every.get(name, 0) for name in expected}

        _expect(moved, expected)

    def complete(self, **body: object) -> openai.types.Completion:
        return self.server.client().completions.create(**{"model": "fake-model", "prompt": PROMPT, **body})  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def watch(start_server: StartServer) -> Callable[..., Watched]:
    return lambda **script: Watched(start_server(**{"say": "Hey", **script}))


def test_one_request_that_stops(watch: Callable[..., Watched]) -> None:
    watched = watch()
    answer = watched.complete(max_tokens=50)
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 4)
    expected = ONE_SEQUENCE | ONE_PROMPT | ONE_LOOK_UP | four_tokens_one_by_one()
    watched.expect({**expected, "vllm:request_params_max_tokens_sum": 50})


def test_a_stream_counts_the_same(watch: Callable[..., Watched]) -> None:
    watched = watch()
    list(watched.complete(max_tokens=50, stream=True))
    expected = ONE_SEQUENCE | ONE_PROMPT | ONE_LOOK_UP | four_tokens_one_by_one()
    watched.expect({**expected, "vllm:request_params_max_tokens_sum": 50})


def test_max_tokens_ends_with_length(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.complete(max_tokens=1)
    one = {name: by for name, by in ONE_SEQUENCE.items() if "success" not in name}
    watched.expect(
        {
            **one,
            **ONE_PROMPT,
            **ONE_LOOK_UP,
            "vllm:request_success_total{length}": 1,
            "vllm:generation_tokens_total": 1,
            "vllm:request_generation_tokens_count": 1,
            "vllm:request_generation_tokens_sum": 1,
            "vllm:request_max_num_generation_tokens_count": 1,
            "vllm:request_max_num_generation_tokens_sum": 1,
            "vllm:request_params_n_count": 1,
            "vllm:request_params_n_sum": 1,
            "vllm:request_params_max_tokens_count": 1,
            "vllm:request_params_max_tokens_sum": 1,
            "vllm:iteration_tokens_total_count": 1,
            "vllm:iteration_tokens_total_sum": 5,
            "headrace:engine_steps_total": 1,
        }
    )


def test_n_sequences_share_a_prompt(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.complete(max_tokens=50, n=3)
    watched.expect_these(
        {
            **ONE_PROMPT,
            **{name: 3 * by for name, by in ONE_SEQUENCE.items()},
            "vllm:generation_tokens_total": 12,
            "vllm:inter_token_latency_seconds_count": 9,
            "vllm:request_generation_tokens_sum": 12,
            "vllm:request_max_num_generation_tokens_count": 1,
            "vllm:request_max_num_generation_tokens_sum": 4,
            "vllm:request_params_n_count": 1,
            "vllm:request_params_n_sum": 3,
            "vllm:request_params_max_tokens_count": 3,
            "vllm:request_params_max_tokens_sum": 150,
        }
    )


def test_several_prompts_are_several_requests(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.complete(max_tokens=50, prompt=[PROMPT, PROMPT])
    watched.expect_these(
        {name: 2 * by for name, by in (ONE_SEQUENCE | ONE_PROMPT | ONE_LOOK_UP).items()}
        | {"vllm:request_params_n_count": 2, "vllm:request_params_n_sum": 2, "vllm:generation_tokens_total": 8}
    )


def test_a_stop_string_is_a_stop_and_no_abort(watch: Callable[..., Watched]) -> None:
    watched = watch(say="Hey you there", step_seconds=0.02)
    answer = watched.complete(max_tokens=50, stop=["y y"])
    assert answer.choices[0].text == "He" and answer.usage is not None
    watched.expect_these(
        {
            "vllm:request_success_total{stop}": 1,
            "vllm:request_success_total{abort}": 0,
            "vllm:request_generation_tokens_sum": answer.usage.completion_tokens,
            "vllm:generation_tokens_total": answer.usage.completion_tokens,
        }
    )


def test_a_client_that_leaves_is_an_abort(watch: Callable[..., Watched]) -> None:
    """It is counted, and so are its tokens; it tells nothing of how long a request takes."""
    watched = watch(say="Hey" * 50, step_seconds=0.02)
    with streaming(watched.server, n=2):
        pass
    watched.expect_these({**ONE_PROMPT, "vllm:request_success_total{abort}": 2, "vllm:request_success_total{stop}": 0})
    moved = watched.moved()
    assert moved["vllm:time_to_first_token_seconds_count"] == 2
    assert moved["vllm:generation_tokens_total"] == 2 + moved.get("vllm:inter_token_latency_seconds_count", 0)
    assert not [name for name in moved if name.startswith(("vllm:e2e", "vllm:request_prompt", "vllm:request_params"))]


def test_a_request_that_leaves_the_queue_is_an_abort_without_tokens(watch: Callable[..., Watched]) -> None:
    watched = watch(say="Hey" * 50, step_seconds=0.02, max_num_seqs=1)
    with streaming(watched.server):
        with waiting(watched.server):
            pass
        watched.expect_these({"vllm:request_success_total{abort}": 1})
    watched.expect_these(
        {
            **{name: by for name, by in ONE_PROMPT.items() if "submitted" not in name},
            "headrace:submitted_requests_total": 2,
            "vllm:request_success_total{abort}": 2,
            "vllm:time_to_first_token_seconds_count": 1,
        }
    )


def test_a_request_that_the_engine_refuses_is_an_error(watch: Callable[..., Watched]) -> None:
    watched = watch(fail_request_on=10)
    with pytest.raises(openai.BadRequestError):
        watched.complete()
    watched.expect(
        {
            "vllm:request_success_total{error}": 1,
            "headrace:submitted_requests_total": 1,
            "headrace:submitted_prompt_tokens_total": 10,
        }
    )


def test_an_engine_that_dies_and_comes_back(watch: Callable[..., Watched]) -> None:
    """Its requests are errors, and no counter falls: dashboards would take that for a huge rate."""
    watched = watch(say="Hey" * 50, step_seconds=0.02)
    server = watched.server
    with pytest.raises(openai.APIError):
        for number, _ in enumerate(watched.complete(stream=True, n=2, max_tokens=100)):
            if number == 6:
                server.kill_engine()
    watched.expect_these({"vllm:request_success_total{error}": 2})
    server.wait_until(lambda: scrape(server.url)("headrace:engine_restarts_total") == 1)
    server.wait_ready()
    before = scrape(server.url)
    watched.complete(max_tokens=2)
    watched.expect_these({"vllm:request_success_total{length}": 1})
    after = scrape(server.url)
    assert min(after.changed_since(before).values()) > 0
    server.wait_until(lambda: scrape(server.url).changed_since(before).get("vllm:prefix_cache_hits_total") == 5)


def test_preemptions(watch: Callable[..., Watched]) -> None:
    watched = watch(preemptions=3)
    watched.complete()
    watched.expect_these({"vllm:num_preemptions_total": 3, "vllm:request_num_preemptions_sum": 3})
    assert scrape(watched.server.url).buckets("vllm:request_num_preemptions") == {"3.0": 1}


def test_refused_requests_are_counted_by_limit(start_server: StartServer) -> None:
    server = start_server(say="Hey" * 80, step_seconds=0.02, max_num_seqs=1, options={"max_num_queued_reqs": 1})
    watched = Watched(server)
    with streaming(server), waiting(server):
        answers = [server.post("/v1/completions", body()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429] * 3
    watched.expect_these({"vllm:admission_rejections_total{max_num_queued_reqs}": 3})


def test_gauges_say_what_runs_and_waits(start_server: StartServer) -> None:
    server = start_server(say="Hey" * 80, step_seconds=0.02, max_num_seqs=2)
    with streaming(server, n=5):
        server.wait_until(lambda: scrape(server.url)("vllm:num_requests_running") == 2)
        now = scrape(server.url)
        assert now("vllm:num_requests_waiting") == now("vllm:num_requests_waiting_by_reason", reason="capacity") == 3
        assert now("headrace:open_sequences") == 5
        assert 0 < now("vllm:kv_cache_usage_perc") == now("vllm:gpu_cache_usage_perc") < 1
        free, blocks = now("headrace:kv_cache_free_blocks"), now("headrace:kv_cache_blocks")
        assert now("vllm:kv_cache_usage_perc") == pytest.approx(1 - free / blocks)
        assert now("vllm:gpu_prefix_cache_hit_rate") == 0.5
    server.wait_until(lambda: scrape(server.url)("vllm:num_requests_running") == 0)
    now = scrape(server.url)
    gauges = ("vllm:num_requests_waiting", "headrace:open_sequences", "vllm:kv_cache_usage_perc")
    assert [now(name) for name in gauges] == [0, 0, 0]


def test_the_cache_has_its_size_before_there_is_any_request(start_server: StartServer) -> None:
    """Also when the engine comes back: shown as 0 blocks, it would look full or broken."""
    server = start_server(say="Hey")
    server.wait_until(lambda: scrape(server.url)("headrace:kv_cache_blocks") == 10_000)
    server.kill_engine()
    server.wait_until(lambda: scrape(server.url)("headrace:engine_restarts_total") == 1)
    server.wait_until(lambda: scrape(server.url)("headrace:kv_cache_blocks") == 10_000)
    assert scrape(server.url)("headrace:kv_cache_free_blocks") == 10_000


def test_it_answers_while_the_engine_loads_is_dead_and_comes_back(start_server: StartServer) -> None:
    server = start_server(wait=False, load_seconds=0.5, say="Hey")
    now = scrape(server.url)
    assert (now("headrace:engine_up"), now("headrace:engine_ready")) == (1, 0)
    server.wait_ready()
    now = scrape(server.url)
    assert (now("headrace:engine_up"), now("headrace:engine_ready")) == (1, 1)
    assert now("headrace:startup_seconds", phase="weights") == 0.5
    assert now("vllm:cache_config_info", block_size="16", num_gpu_blocks="10000", cache_dtype="auto") == 1
    server.kill_engine()
    server.wait_until(lambda: scrape(server.url)("headrace:engine_up") == 0)
    server.wait_until(lambda: scrape(server.url)("headrace:engine_up") == 1)
    now = scrape(server.url)
    assert (now("headrace:engine_ready"), now("headrace:engine_restarts_total")) == (1, 1)


def test_http_requests_and_their_answers(start_server: StartServer) -> None:
    """A scrape that is being answered is open itself, and counted when it is over."""
    server = start_server(say="Hey" * 80, step_seconds=0.02)
    before = scrape(server.url)
    with streaming(server):
        assert scrape(server.url)("headrace:http_open_requests") == 2
        assert [server.get("/nowhere").status_code for _ in range(3)] == [404] * 3
    server.wait_until(lambda: scrape(server.url)("headrace:http_open_requests") == 1)
    now = scrape(server.url)
    moved = {each: now(HTTP, status=each) - before(HTTP, status=each) for each in ("200", "404", "500")}
    assert moved["404"] == 3 and moved["500"] == 0
    assert moved["200"] >= 4, "the stream, and the scrapes"


def test_two_servers_in_one_process_count_apart(start_server: StartServer) -> None:
    one, other = Watched(start_server(say="Hey")), Watched(start_server(say="Hey"))
    one.complete()
    one.expect_these(ONE_PROMPT)
    other.expect({})


def test_open_metrics_for_who_accepts_it(server: RunningServer) -> None:
    plain = server.get("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = server.http.get(f"{server.url}/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n") and "vllm:prompt_tokens_total{" in answer.text


def _expect(moved: Callable[[], dict[str, float]], expected: dict[str, float]) -> None:
    """The engine tells its own counts a moment later than its tokens."""
    deadline = time.monotonic() + 10
    while moved() != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    assert moved() == expected


def body(**fields: object) -> dict[str, object]:
    return {"model": "fake-model", "prompt": PROMPT, "stream": True, "max_tokens": 200, **fields}


@contextlib.contextmanager
def streaming(server: RunningServer, **fields: object) -> Iterator[None]:
    """A client that has its first token, and then reads no more until it leaves."""
    with server.http.stream("POST", f"{server.url}/v1/completions", json=body(**fields)) as stream:
        lines = stream.iter_lines()
        next(lines)
        yield
        del lines  # the stream closes with them


@contextlib.contextmanager
def waiting(server: RunningServer) -> Iterator[None]:
    """A client whose request is in the queue, until it leaves."""
    request = httpx.Request("POST", f"{server.url}/v1/completions", json=body())
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with server.raw() as connection:
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        server.wait_until(lambda: scrape(server.url)("headrace:queued_requests") == 1)
        yield
