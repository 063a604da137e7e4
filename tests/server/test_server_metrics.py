"""Known times and sizes fall into the right buckets, and their sums are exact."""

import pytest
from scraped import Scrape

from headrace.server.metrics import RequestTimes, ServerMetrics
from headrace.wire.messages import EngineStats, Ready

TIMES = RequestTimes(
    arrival=100.0,
    first_token=100.375,
    last_token=102.375,
    queue_seconds=0.125,
    prompt_tokens=300,
    cached_tokens=100,
    output_tokens=17,
    n=2,
    max_tokens=64,
    preemptions=1,
    reason="stop",
    longest_tokens=20,
)

EXPECTED = {
    "vllm:e2e_request_latency_seconds": (2.375, "2.5"),
    "vllm:request_queue_time_seconds": (0.125, "0.2"),
    "vllm:request_prefill_time_seconds": (0.25, "0.3"),
    "vllm:request_decode_time_seconds": (2.0, "2.0"),
    "vllm:request_inference_time_seconds": (2.25, "2.5"),
    "vllm:request_time_per_output_token_seconds": (0.125, "0.15"),
    "vllm:request_prompt_tokens": (300, "500.0"),
    "vllm:request_prefill_kv_computed_tokens": (200, "200.0"),
    "vllm:request_generation_tokens": (17, "20.0"),
    "vllm:request_max_num_generation_tokens": (20, "20.0"),
    "vllm:request_params_n": (2, "2.0"),
    "vllm:request_params_max_tokens": (64, "100.0"),
    "vllm:request_num_preemptions": (1, "1.0"),
}
"""Histogram -> (the value that `TIMES` makes, the bucket that it falls into: its upper end, which is inclusive)."""


@pytest.mark.parametrize("name", EXPECTED)
def test_a_sequence_that_ended(name: str) -> None:
    metrics = ServerMetrics()
    for _ in range(2):
        metrics.on_finish(TIMES)
    value, bucket = EXPECTED[name]
    assert histogram(metrics, name) == ({bucket: 2}, 2, 2 * value)


def test_every_histogram_of_finished_sequences_is_above() -> None:
    metrics = ServerMetrics()
    metrics.on_finish(TIMES)
    moved = {
        metric.name for metric in metrics.series.metrics if metric.kind == "histogram" and count(metrics, metric.name)
    }
    assert moved == EXPECTED.keys()


def test_one_token_has_no_time_between_tokens() -> None:
    metrics = ServerMetrics()
    metrics.on_finish(TIMES._replace(output_tokens=1, last_token=TIMES.first_token))
    assert count(metrics, "vllm:request_time_per_output_token_seconds") == 0
    assert count(metrics, "vllm:e2e_request_latency_seconds") == 1


def test_first_and_next_tokens_and_steps() -> None:
    metrics = ServerMetrics()
    metrics.on_first_token(0.0004, cached_tokens=32, prompt_tokens=40)
    metrics.on_first_token(0.0006, cached_tokens=0, prompt_tokens=0)
    metrics.on_next_tokens([0.0005, 0.002, 0.0021, 1.0])
    metrics.on_next_tokens([])
    metrics.on_step(41)
    assert histogram(metrics, "vllm:time_to_first_token_seconds") == ({"0.0005": 1, "0.001": 1}, 2, 0.001)
    gaps = ({"0.0005": 1, "0.002": 1, "0.005": 1, "1.0": 1}, 4, pytest.approx(1.0046))
    assert histogram(metrics, "vllm:inter_token_latency_seconds") == gaps
    assert histogram(metrics, "vllm:time_per_output_token_seconds") == gaps
    assert histogram(metrics, "vllm:iteration_tokens_total") == ({"64.0": 1}, 1, 41)


def test_counts_of_an_engine_go_on_over_its_restarts() -> None:
    """Also where the new one has counted beyond the old one before it tells."""
    metrics = ServerMetrics()
    first = EngineStats(num_preemptions=3, steps=10, num_compilations=1)
    for stats in (first, EngineStats(num_preemptions=5, steps=30, num_compilations=2)):
        metrics.on_ready(Ready(256, 1_000, []))
        metrics.on_stats(stats)
        metrics.on_stats(stats)
    now = scraped(metrics)
    assert (now("vllm:num_preemptions_total"), now("headrace:engine_steps_total")) == (8, 40)
    assert now("headrace:kernel_compilations_total") == 3
    assert now("headrace:engine_restarts_total") == 1


def test_start_up_and_cache_are_those_of_the_last_start() -> None:
    metrics = ServerMetrics()
    for seconds, blocks in (({"download": 9.0, "weights": 2.0}, "10"), ({"weights": 1.5}, "20")):
        metrics.on_ready(Ready(256, 1_000, [], cache_config={"num_gpu_blocks": blocks}, startup_seconds=seconds))
    now = scraped(metrics)
    phases = next(each for each in now.families if each.name == "headrace:startup_seconds").samples
    assert {sample.labels["phase"]: sample.value for sample in phases} == {"weights": 1.5}
    assert now("vllm:cache_config_info", num_gpu_blocks="20") == 1


def histogram(metrics: ServerMetrics, name: str) -> tuple[dict[str, float], float, float]:
    """(count by bucket, not cumulative; count; sum), as rendered."""
    now = scraped(metrics)
    return now.buckets(name), now(f"{name}_count"), now(f"{name}_sum")


def scraped(metrics: ServerMetrics) -> Scrape:
    return Scrape(metrics.render(("model", "0"), "")[0].decode())


def count(metrics: ServerMetrics, name: str) -> int:
    return metrics.series.histogram(name).count
