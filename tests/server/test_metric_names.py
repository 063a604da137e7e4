"""Names and labels are vLLM's, as it has them on the wire: dashboards, autoscalers and routers read them by name."""

import pytest
from running_server import RunningServer
from scraped import COMMON, scrape

from headrace.observe.absent import ABSENT
from headrace.observe.buckets import FINE_SECONDS
from headrace.observe.catalogue import CATALOGUE, Metric

VLLM: dict[str, set[str]] = {
    "vllm:num_requests_running": set(),
    "vllm:num_requests_waiting": set(),
    "vllm:num_requests_waiting_by_reason": {"reason"},
    "vllm:num_requests_kv_fetch_by_stage": {"stage"},
    "vllm:kv_cache_usage_perc": set(),
    "vllm:engine_sleep_state": {"sleep_state"},
    "vllm:cache_config_info": {"block_size", "num_gpu_blocks", "cache_dtype"},
    "vllm:lora_requests_info": {"max_lora", "running_lora_adapters", "waiting_lora_adapters"},
    "vllm:prompt_tokens_total": set(),
    "vllm:generation_tokens_total": set(),
    "vllm:prompt_tokens_by_source_total": {"source"},
    "vllm:prompt_tokens_cached_total": set(),
    "vllm:prompt_tokens_cached_by_source_total": {"source"},
    "vllm:prefix_cache_queries_total": set(),
    "vllm:prefix_cache_hits_total": set(),
    "vllm:external_prefix_cache_queries_total": set(),
    "vllm:external_prefix_cache_hits_total": set(),
    "vllm:mm_cache_queries_total": set(),
    "vllm:mm_cache_hits_total": set(),
    "vllm:num_preemptions_total": set(),
    "vllm:request_success_total": {"finished_reason"},
    "vllm:corrupted_requests_total": set(),
    "vllm:watermark_requests_total": {"status"},
    "vllm:admission_rejections_total": {"reason"},
    "vllm:spec_decode_num_drafts_total": set(),
    "vllm:spec_decode_num_draft_tokens_total": set(),
    "vllm:spec_decode_num_accepted_tokens_total": set(),
    "vllm:spec_decode_num_accepted_tokens_per_pos_total": {"position"},
    "vllm:estimated_flops_per_gpu_total": set(),
    "vllm:estimated_read_bytes_per_gpu_total": set(),
    "vllm:estimated_write_bytes_per_gpu_total": set(),
    "vllm:tool_call_parser_invocations_total": {"mode", "outcome", "request_type"},
    "vllm:time_to_first_token_seconds": {"le"},
    "vllm:inter_token_latency_seconds": {"le"},
    "vllm:request_time_per_output_token_seconds": {"le"},
    "vllm:e2e_request_latency_seconds": {"le"},
    "vllm:request_queue_time_seconds": {"le"},
    "vllm:request_inference_time_seconds": {"le"},
    "vllm:request_prefill_time_seconds": {"le"},
    "vllm:request_decode_time_seconds": {"le"},
    "vllm:request_prompt_tokens": {"le"},
    "vllm:request_generation_tokens": {"le"},
    "vllm:request_max_num_generation_tokens": {"le"},
    "vllm:request_params_n": {"le"},
    "vllm:request_params_max_tokens": {"le"},
    "vllm:iteration_tokens_total": {"le"},
    "vllm:request_num_preemptions": {"le"},
    "vllm:request_prefill_kv_computed_tokens": {"le"},
    "vllm:kv_block_lifetime_seconds": {"le"},
    "vllm:kv_block_idle_before_evict_seconds": {"le"},
    "vllm:kv_block_reuse_gap_seconds": {"le"},
    "vllm:sleep_mode_operation_duration_seconds": {"le"},
    "vllm:sleep_mode_operations_in_flight": set(),
}
"""What vLLM 0.33 exposes, name -> labels besides the common ones; its families of features left out."""

EARLIER_VLLM: dict[str, set[str]] = {
    "vllm:gpu_cache_usage_perc": set(),
    "vllm:gpu_prefix_cache_hit_rate": set(),
    "vllm:gpu_prefix_cache_hits_total": set(),
    "vllm:gpu_prefix_cache_queries_total": set(),
    "vllm:time_per_output_token_seconds": {"le"},
}
"""Names that vLLM had once, and that dashboards and routers still read."""

READERS = {
    "the endpoint picker of the Gateway API's inference extension, and llm-d": [
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:cache_config_info",
    ],
    "the router of vLLM's production stack": [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:gpu_cache_usage_perc",
        "vllm:gpu_prefix_cache_hit_rate",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_queries_total",
    ],
    "vLLM's own Grafana dashboard": [
        "vllm:e2e_request_latency_seconds_bucket",
        "vllm:e2e_request_latency_seconds_sum",
        "vllm:e2e_request_latency_seconds_count",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:inter_token_latency_seconds_bucket",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:request_success_total",
        "vllm:request_queue_time_seconds_sum",
        "vllm:request_prefill_time_seconds_sum",
        "vllm:request_decode_time_seconds_sum",
        "vllm:request_prompt_tokens_bucket",
        "vllm:request_generation_tokens_bucket",
        "vllm:request_max_num_generation_tokens_sum",
    ],
}
"""Reader -> the samples that it asks for; adapters' are not here yet."""


@pytest.fixture(scope="module")
def labels(server: RunningServer) -> dict[str, set[str]]:
    """Every name on the wire, with the labels that its samples have."""
    found: dict[str, set[str]] = {}
    for family in scrape(server.url).families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = set().union(*(sample.labels for sample in family.samples))
    return found


def test_every_name_of_vllm_is_there_or_its_absence_is_explained(labels: dict[str, set[str]]) -> None:
    there = {name for name in labels if name.startswith("vllm:")}
    assert there == (VLLM.keys() - ABSENT.keys()) | EARLIER_VLLM.keys()
    assert ABSENT.keys() <= VLLM.keys()


def test_labels_are_vllms(labels: dict[str, set[str]]) -> None:
    for name, expected in (VLLM | EARLIER_VLLM).items():
        if name in labels:
            assert labels[name] == expected | COMMON, name


def test_every_series_says_which_model_and_which_engine(server: RunningServer) -> None:
    samples = [sample for family in scrape(server.url).families for sample in family.samples]
    ours = [sample for sample in samples if ":" in sample.name]
    assert {(each.labels["model_name"], each.labels["engine"]) for each in ours} == {("fake-model", "0")}


@pytest.mark.parametrize("reader", READERS)
def test_who_reads_vllms_metrics_finds_them(reader: str, server: RunningServer) -> None:
    samples = {sample.name for family in scrape(server.url).families for sample in family.samples}
    assert not set(READERS[reader]) - samples


def test_vllms_buckets_are_all_there_and_finer_ones_before_them() -> None:
    by_name: dict[str, Metric] = {metric.name: metric for metric in CATALOGUE}
    latency = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
    ttft = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
            2560)  # fmt: skip
    itl = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
    for name, buckets in (
        ("e2e_request_latency", latency),
        ("request_queue_time", latency),
        ("time_to_first_token", ttft),
        ("inter_token_latency", itl),
    ):
        assert set(buckets) <= set(by_name[f"vllm:{name}_seconds"].buckets)
    for name in ("time_to_first_token", "inter_token_latency", "request_time_per_output_token"):
        assert by_name[f"vllm:{name}_seconds"].buckets[: len(FINE_SECONDS)] == (0.0005, 0.001, 0.002, 0.005)
    assert by_name["vllm:iteration_tokens_total"].buckets == (1, *(2**power for power in range(3, 15)))
