"""A Grafana dashboard: what is asked of a server when something is slow, in the order in which it is asked.

`python -m headrace.observe.dashboard > examples/monitoring/dashboard.json`
"""

import json
from dataclasses import dataclass

from headrace.observe.promql import mean, per_second, quantile, ratio, where

_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_MODEL = 'model_name=~"$model_name"'


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart of `queries`: legend -> PromQL. `unit` is Grafana's name for it."""

    title: str
    unit: str
    queries: dict[str, str]


def _quantiles(histogram: str) -> dict[str, str]:
    return {f"p{share * 100:g}": quantile(share, histogram) for share in (0.5, 0.9, 0.99)}


PANELS: tuple[Panel, ...] = (
    Panel(
        "Sequences",
        "short",
        {
            "running": "vllm:num_requests_running",
            "waiting in the engine": "vllm:num_requests_waiting",
            "let in, no token yet": "headrace:queued_requests",
        },
    ),
    Panel(
        "Tokens a second",
        "short",
        {
            "prompt, computed": per_second('vllm:prompt_tokens_by_source_total{source="local_compute"}'),
            "prompt, cached": per_second('vllm:prompt_tokens_by_source_total{source="local_cache_hit"}'),
            "generated": per_second("vllm:generation_tokens_total"),
        },
    ),
    Panel("Time to the first token", "s", _quantiles("vllm:time_to_first_token_seconds")),
    Panel("Time between tokens", "s", _quantiles("vllm:inter_token_latency_seconds")),
    Panel("Time of a whole request", "s", _quantiles("vllm:e2e_request_latency_seconds")),
    Panel(
        "Where a request's time goes (means)",
        "s",
        {
            "queue": mean("vllm:request_queue_time_seconds"),
            "prefill": mean("vllm:request_prefill_time_seconds"),
            "decode": mean("vllm:request_decode_time_seconds"),
        },
    ),
    Panel(
        "KV cache",
        "percentunit",
        {
            "in use": "vllm:kv_cache_usage_perc",
            "prefix cache hits": ratio("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
        },
    ),
    Panel("Tokens of a step", "short", _quantiles("vllm:iteration_tokens_total")),
    Panel(
        "Sequences that ended, a second",
        "short",
        {"{{finished_reason}}": per_second("vllm:request_success_total", "finished_reason")},
    ),
    Panel(
        "Refused, preempted, a second",
        "short",
        {
            "refused: {{reason}}": per_second("vllm:admission_rejections_total", "reason"),
            "preempted": per_second("vllm:num_preemptions_total"),
        },
    ),
    Panel("HTTP answers a second", "short", {"{{status}}": per_second("headrace:http_responses_total", "status")}),
    Panel(
        "Engine",
        "short",
        {
            "up": "headrace:engine_up",
            "ready": "headrace:engine_ready",
            "restarts": "headrace:engine_restarts_total",
            "seconds without progress": "headrace:engine_late_seconds",
        },
    ),
    Panel("Prompt tokens of a request", "short", _quantiles("vllm:request_prompt_tokens")),
    Panel("Generated tokens of a sequence", "short", _quantiles("vllm:request_generation_tokens")),
)


def dashboard() -> str:
    """The dashboard as Grafana imports it: it asks for the data source, and lets one choose the models."""
    model = {
        "name": "model_name",
        "label": "Model",
        "type": "query",
        "datasource": _SOURCE,
        "query": "label_values(headrace:engine_up, model_name)",
        "multi": True,
        "includeAll": True,
        "refresh": 2,
    }
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    whole = {
        "title": "Headrace",
        "uid": "headrace",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, model]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }
    return json.dumps(whole, indent=2) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, object]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "legendFormat": legend,
                "expr": where(_MODEL, query),
            }
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    print(dashboard(), end="")
