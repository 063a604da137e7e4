"""What the server counts: each hook is called where the thing happens, and costs next to nothing there.

One event loop's thread calls them all. Counts of the engine's own go on over its restarts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headrace.observe.accumulators import RestartedCounter
from headrace.observe.exposition import Exposition
from headrace.observe.metric_set import MetricSet
from headrace.wire.messages import EngineStats, Ready


class RequestTimes(NamedTuple):
    """How one of a request's n sequences went; seconds of `time.monotonic`, `first_token` 0.0 if there was none.

    `reason` is stop, length, abort or error. `longest_tokens` comes with the last sequence of a request to end: the
    output tokens of the longest; None with the others.
    """

    arrival: float
    first_token: float
    last_token: float
    queue_seconds: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    n: int
    max_tokens: int | None
    preemptions: int
    reason: str
    longest_tokens: int | None


class ServerMetrics:
    """One server's counts. `series` are the accumulators, which the exposition reads."""

    def __init__(self) -> None:
        self.series = series = MetricSet()
        self._open_requests = series.number("headrace:http_open_requests")
        self._submitted = series.number("headrace:submitted_requests_total")
        self._submitted_prompt_tokens = series.number("headrace:submitted_prompt_tokens_total")
        self._prompt_tokens = series.number("vllm:prompt_tokens_total")
        self._computed = series.number("vllm:prompt_tokens_by_source_total", "local_compute")
        self._cache_hits = series.number("vllm:prompt_tokens_by_source_total", "local_cache_hit")
        self._cached = series.number("vllm:prompt_tokens_cached_total")
        self._cached_on_device = series.number("vllm:prompt_tokens_cached_by_source_total", "device")
        self._generated = series.number("vllm:generation_tokens_total")
        self._first_token = series.histogram("vllm:time_to_first_token_seconds")
        self._gaps = series.histogram("vllm:inter_token_latency_seconds")
        self._step_tokens = series.histogram("vllm:iteration_tokens_total")
        self._preemptions = RestartedCounter(series.number("vllm:num_preemptions_total"))
        self._queries = RestartedCounter(series.number("vllm:prefix_cache_queries_total"))
        self._hits = RestartedCounter(series.number("vllm:prefix_cache_hits_total"))
        self._steps = RestartedCounter(series.number("headrace:engine_steps_total"))
        self._compilations = RestartedCounter(series.number("headrace:kernel_compilations_total"))
        self._exposition = Exposition(series)
        self._started = False

    def on_request(self) -> None:
        """An HTTP request came."""
        self._open_requests.value += 1

    def on_response(self, status: int) -> None:
        """An HTTP request has been answered, or its client is gone. `status` 0: before there was an answer."""
        self._open_requests.value -= 1
        if status:
            self.series.number("headrace:http_responses_total", str(status)).value += 1

    def on_submit(self, prompt_tokens: int) -> None:
        """A request (one prompt, n sequences) went to the engine."""
        self._submitted.value += 1
        self._submitted_prompt_tokens.value += prompt_tokens

    def on_first_token(self, ttft_seconds: float, cached_tokens: int, prompt_tokens: int) -> None:
        """A sequence's first token came.

        `prompt_tokens` is 0 for all but the first of a request's n sequences, whose prompt counts once.
        """
        self._first_token.observe(ttft_seconds)
        self._generated.value += 1
        if prompt_tokens:
            self._prompt_tokens.value += prompt_tokens
            self._cached.value += cached_tokens
            self._cached_on_device.value += cached_tokens
            self._cache_hits.value += cached_tokens
            self._computed.value += prompt_tokens - cached_tokens

    def on_next_tokens(self, gaps: list[float]) -> None:
        """A step's further tokens came: the seconds since each one's predecessor, over all sequences."""
        self._generated.value += len(gaps)
        self._gaps.observe_all(gaps)

    def on_step(self, num_tokens: int) -> None:
        """A step of the engine computed `num_tokens`, prefill and decode together."""
        self._step_tokens.observe(num_tokens)

    def on_finish(self, times: RequestTimes) -> None:
        """A sequence ended. One that was cut off (abort, error) is counted, but tells nothing of times and sizes."""
        self.series.number("vllm:request_success_total", times.reason).value += 1
        if times.reason in ("stop", "length"):
            self._observe_sizes(times)
            self._observe_seconds(times)

    def on_reject(self, reason: str) -> None:
        """A request was refused because too much waits; `reason` names the limit."""
        self.series.number("vllm:admission_rejections_total", reason).value += 1

    def on_stats(self, stats: EngineStats) -> None:
        """The engine tells its counts."""
        self._preemptions.follow(stats.num_preemptions)
        self._queries.follow(stats.prefix_cache_queries)
        self._hits.follow(stats.prefix_cache_hits)
        self._steps.follow(stats.steps)
        self._compilations.follow(stats.num_compilations)

    def on_ready(self, ready: Ready) -> None:
        """The engine can take requests: for the first time, or again."""
        for counter in (self._preemptions, self._queries, self._hits, self._steps, self._compilations):
            counter.restart()
        if self._started:
            self.series.number("headrace:engine_restarts_total").value += 1
        self._started = True
        self.series.tell("vllm:cache_config_info", ready.cache_config)
        self.series.replace("headrace:startup_seconds", ready.startup_seconds)

    def show(self, gauges: Mapping[str, float]) -> None:
        """Set what is true now rather than counted."""
        for name, value in gauges.items():
            self.series.number(name).value = value
        waiting = self.series.number("vllm:num_requests_waiting").value
        self.series.number("vllm:num_requests_waiting_by_reason", "capacity").value = waiting
        self.series.number("vllm:gpu_prefix_cache_hit_rate").value = self._hit_rate()

    def render(self, common: Sequence[str], accept: str) -> tuple[bytes, str]:
        """The text for a scrape and its content type; see `Exposition.render`."""
        return self._exposition.render(common, accept)

    def _hit_rate(self) -> float:
        queries = self.series.number("vllm:prefix_cache_queries_total").value
        return self.series.number("vllm:prefix_cache_hits_total").value / queries if queries else 0.0

    def _observe_sizes(self, times: RequestTimes) -> None:
        observe = self._observe
        observe("vllm:request_prompt_tokens", times.prompt_tokens)
        observe("vllm:request_prefill_kv_computed_tokens", times.prompt_tokens - times.cached_tokens)
        observe("vllm:request_generation_tokens", times.output_tokens)
        observe("vllm:request_num_preemptions", times.preemptions)
        if times.max_tokens is not None:
            observe("vllm:request_params_max_tokens", times.max_tokens)
        if times.longest_tokens is not None:
            observe("vllm:request_max_num_generation_tokens", times.longest_tokens)
            observe("vllm:request_params_n", times.n)

    def _observe_seconds(self, times: RequestTimes) -> None:
        observe, first_step = self._observe, times.arrival + times.queue_seconds
        observe("vllm:e2e_request_latency_seconds", times.last_token - times.arrival)
        observe("vllm:request_queue_time_seconds", times.queue_seconds)
        observe("vllm:request_prefill_time_seconds", times.first_token - first_step)
        observe("vllm:request_decode_time_seconds", times.last_token - times.first_token)
        observe("vllm:request_inference_time_seconds", times.last_token - first_step)
        if times.output_tokens > 1:
            gap = (times.last_token - times.first_token) / (times.output_tokens - 1)
            observe("vllm:request_time_per_output_token_seconds", gap)

    def _observe(self, name: str, value: float) -> None:
        self.series.histogram(name).observe(value)
