"""Every metric there is, as data: exposition, docs, dashboards, alerts and tests are all made from this list.

Names and labels are vLLM's where vLLM has one (`vllm:*`), so that dashboards, autoscalers and routers that know vLLM
know Headrace; what vLLM lacks is `headrace:*`. A name that vLLM has given up but that readers still ask for is kept as
an alias. Each series also has the labels `model_name` and `engine`.
"""

from dataclasses import dataclass
from typing import Literal

from headrace.observe.buckets import (
    CHOICES,
    FIRST_TOKEN_SECONDS,
    LATENCY_SECONDS,
    PREEMPTIONS,
    REQUEST_TOKENS,
    STEP_TOKENS,
    TOKEN_SECONDS,
)

Kind = Literal["counter", "gauge", "histogram", "info"]

COMMON_LABELS = ("model_name", "engine")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` is the one on the wire, a counter's with its `_total`; `since` is the Headrace version.

    `labels` are those besides the common ones; `values` are a single label's values that are there from the start, at
    zero, so that rates begin right. An info's labels are whatever its source tells.
    """

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    aliases: tuple[str, ...] = ()
    since: str = "0.1"


CATALOGUE: tuple[Metric, ...] = (
    # What runs and waits now.
    Metric("vllm:num_requests_running", "gauge", "Sequences that the engine computes now", "sequences"),
    Metric("vllm:num_requests_waiting", "gauge", "Sequences that wait for the engine's first step", "sequences"),
    Metric(
        "vllm:num_requests_waiting_by_reason",
        "gauge",
        "Waiting sequences by what they wait for: room in the batch and the cache, or something else first",
        "sequences",
        labels=("reason",),
        values=("capacity", "deferred"),
    ),
    Metric(
        "vllm:kv_cache_usage_perc",
        "gauge",
        "Share of the KV cache's blocks that sequences hold; 1 is all",
        "ratio",
        aliases=("vllm:gpu_cache_usage_perc",),
    ),
    Metric("vllm:cache_config_info", "info", "The KV cache's settings, as labels"),
    # Tokens.
    Metric("vllm:prompt_tokens_total", "counter", "Prompt tokens of requests that have begun to answer", "tokens"),
    Metric("vllm:generation_tokens_total", "counter", "Tokens generated", "tokens"),
    Metric(
        "vllm:prompt_tokens_by_source_total",
        "counter",
        "Prompt tokens by where their keys and values came from",
        "tokens",
        labels=("source",),
        values=("local_compute", "local_cache_hit", "external_kv_transfer"),
    ),
    Metric("vllm:prompt_tokens_cached_total", "counter", "Prompt tokens that were in the prefix cache", "tokens"),
    Metric(
        "vllm:prompt_tokens_cached_by_source_total",
        "counter",
        "Prompt tokens that were in the prefix cache, by where it was: always the device's own memory here",
        "tokens",
        labels=("source",),
        values=("device",),
    ),
    Metric(
        "vllm:prefix_cache_queries_total",
        "counter",
        "Tokens looked up in the prefix cache",
        "tokens",
        aliases=("vllm:gpu_prefix_cache_queries_total",),
    ),
    Metric(
        "vllm:prefix_cache_hits_total",
        "counter",
        "Tokens found in the prefix cache",
        "tokens",
        aliases=("vllm:gpu_prefix_cache_hits_total",),
    ),
    Metric(
        "vllm:gpu_prefix_cache_hit_rate", "gauge", "Share of looked-up tokens that were found, since the start", "ratio"
    ),
    # How requests ended.
    Metric(
        "vllm:request_success_total",
        "counter",
        "Sequences that ended, by reason",
        "sequences",
        labels=("finished_reason",),
        values=("stop", "length", "abort", "error"),
    ),
    Metric(
        "vllm:admission_rejections_total",
        "counter",
        "Requests refused with 429 because too much was waiting, by the limit that was reached",
        "requests",
        labels=("reason",),
        values=("max_num_queued_reqs", "max_num_queued_tokens", "max_queue_time"),
    ),
    Metric("vllm:num_preemptions_total", "counter", "Times a sequence gave its cache to another", "preemptions"),
    # How long things took.
    Metric(
        "vllm:time_to_first_token_seconds",
        "histogram",
        "From a request's arrival to each sequence's first token",
        "seconds",
        buckets=FIRST_TOKEN_SECONDS,
    ),
    Metric(
        "vllm:inter_token_latency_seconds",
        "histogram",
        "Between two tokens of a sequence",
        "seconds",
        buckets=TOKEN_SECONDS,
        aliases=("vllm:time_per_output_token_seconds",),
    ),
    Metric(
        "vllm:request_time_per_output_token_seconds",
        "histogram",
        "A sequence's mean time between tokens; those with one token have none",
        "seconds",
        buckets=TOKEN_SECONDS,
    ),
    Metric(
        "vllm:e2e_request_latency_seconds",
        "histogram",
        "From a request's arrival to a sequence's last token",
        "seconds",
        buckets=LATENCY_SECONDS,
    ),
    Metric(
        "vllm:request_queue_time_seconds",
        "histogram",
        "From the engine's receiving a sequence to its first step",
        "seconds",
        buckets=LATENCY_SECONDS,
    ),
    Metric(
        "vllm:request_inference_time_seconds",
        "histogram",
        "From a sequence's first step to its last token",
        "seconds",
        buckets=LATENCY_SECONDS,
    ),
    Metric(
        "vllm:request_prefill_time_seconds",
        "histogram",
        "From a sequence's first step to its first token",
        "seconds",
        buckets=LATENCY_SECONDS,
    ),
    Metric(
        "vllm:request_decode_time_seconds",
        "histogram",
        "From a sequence's first token to its last",
        "seconds",
        buckets=LATENCY_SECONDS,
    ),
    # How large things were.
    Metric(
        "vllm:request_prompt_tokens",
        "histogram",
        "Prompt tokens of a finished sequence",
        "tokens",
        buckets=REQUEST_TOKENS,
    ),
    Metric(
        "vllm:request_generation_tokens",
        "histogram",
        "Tokens generated for a finished sequence",
        "tokens",
        buckets=REQUEST_TOKENS,
    ),
    Metric(
        "vllm:request_max_num_generation_tokens",
        "histogram",
        "Tokens generated for the longest of a finished request's n sequences",
        "tokens",
        buckets=REQUEST_TOKENS,
    ),
    Metric("vllm:request_params_n", "histogram", "A finished request's n", "sequences", buckets=CHOICES),
    Metric(
        "vllm:request_params_max_tokens",
        "histogram",
        "The most tokens that a finished sequence could have had",
        "tokens",
        buckets=REQUEST_TOKENS,
    ),
    Metric(
        "vllm:request_prefill_kv_computed_tokens",
        "histogram",
        "Prompt tokens of a finished sequence that the prefix cache did not have",
        "tokens",
        buckets=REQUEST_TOKENS,
    ),
    Metric(
        "vllm:request_num_preemptions",
        "histogram",
        "Times a finished sequence was preempted",
        "preemptions",
        buckets=PREEMPTIONS,
    ),
    Metric(
        "vllm:iteration_tokens_total",
        "histogram",
        "Tokens that a step of the engine computed, prefill and decode together",
        "tokens",
        buckets=STEP_TOKENS,
    ),
    # What vLLM lacks.
    Metric("headrace:engine_up", "gauge", "1 while the engine process lives, also while it loads; else 0", "bool"),
    Metric("headrace:engine_ready", "gauge", "1 while requests are taken, else 0", "bool"),
    Metric(
        "headrace:engine_late_seconds",
        "gauge",
        "For how long the engine has made no progress, if it has work and that is too long; else 0",
        "seconds",
    ),
    Metric("headrace:engine_restarts_total", "counter", "Times the engine came back after a failure", "restarts"),
    Metric(
        "headrace:startup_seconds",
        "gauge",
        "How long each phase of the engine's last start took",
        "seconds",
        labels=("phase",),
    ),
    Metric("headrace:submitted_requests_total", "counter", "Requests (one prompt each) sent to the engine", "requests"),
    Metric(
        "headrace:submitted_prompt_tokens_total", "counter", "Prompt tokens of requests sent to the engine", "tokens"
    ),
    Metric("headrace:engine_steps_total", "counter", "Steps that the engine has taken", "steps"),
    Metric(
        "headrace:kernel_compilations_total",
        "counter",
        "GPU kernels that were built after the engine was ready, each of which held up a step; 0 where all is well",
        "kernels",
    ),
    Metric(
        "headrace:http_open_requests", "gauge", "HTTP requests that are being answered, streams among them", "requests"
    ),
    Metric(
        "headrace:http_responses_total",
        "counter",
        "HTTP requests answered, by status; a stream's is told when it ends",
        "responses",
        labels=("status",),
        values=("200", "400", "401", "403", "404", "405", "408", "413", "415", "429", "431", "500", "503"),
    ),
    Metric("headrace:open_sequences", "gauge", "Sequences that the server waits for", "sequences"),
    Metric("headrace:queued_requests", "gauge", "Requests that were let in and have no token yet", "requests"),
    Metric("headrace:queued_tokens", "gauge", "The work of those, as tokens to compute", "tokens"),
    Metric("headrace:kv_cache_blocks", "gauge", "Blocks of the KV cache", "blocks"),
    Metric("headrace:kv_cache_free_blocks", "gauge", "Blocks that no sequence holds", "blocks"),
)
"""What /metrics shows, in its order; the metrics of the process itself are prometheus_client's."""
