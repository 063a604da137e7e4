"""Prometheus' own tool accepts the alerts and the dashboard's queries, and each alert fires when it should."""

import json
import subprocess
from pathlib import Path

import pytest

from headrace.observe.alerts import ALERTS, Alert, rules
from headrace.observe.dashboard import dashboard

SERVER = {"model_name": "m", "instance": "i"}
LABELS = 'engine="0",instance="i",model_name="m"'

FIRING = {
    "HeadraceEngineDown": {"headrace:engine_up{LABELS}": "0x60"},
    "HeadraceEngineHangs": {"headrace:engine_late_seconds{LABELS}": "0+60x60"},
    "HeadraceEngineRestarts": {"headrace:engine_restarts_total{LABELS}": "0x40 1x5 2x15"},
    "HeadraceRequestsFail": {
        'vllm:request_success_total{LABELS,finished_reason="stop"}': "0+98x60",
        'vllm:request_success_total{LABELS,finished_reason="error"}': "0+2x60",
    },
    "HeadraceServerErrors": {
        'headrace:http_responses_total{LABELS,status="200"}': "0+98x60",
        'headrace:http_responses_total{LABELS,status="500"}': "0+1x60",
        'headrace:http_responses_total{LABELS,status="503"}': "0+1x60",
    },
    "HeadraceRefusesRequests": {'vllm:admission_rejections_total{LABELS,reason="max_num_queued_reqs"}': "0+1x60"},
    "HeadraceSlowFirstToken": {
        'vllm:time_to_first_token_seconds_bucket{LABELS,le="10.0"}': "0+90x60",
        'vllm:time_to_first_token_seconds_bucket{LABELS,le="20.0"}': "0+100x60",
        'vllm:time_to_first_token_seconds_bucket{LABELS,le="+Inf"}': "0+100x60",
    },
    "HeadracePreempts": {"vllm:num_preemptions_total{LABELS}": "0+60x60"},
}
"""Alert -> series, minute by minute, with which it must fire within the hour."""

QUIET = {
    "headrace:engine_up{LABELS}": "1x60",
    "headrace:engine_late_seconds{LABELS}": "0x60",
    "headrace:engine_restarts_total{LABELS}": "0x30 1x30",
    'vllm:request_success_total{LABELS,finished_reason="stop"}': "0+998x60",
    'vllm:request_success_total{LABELS,finished_reason="error"}': "0+2x60",
    'headrace:http_responses_total{LABELS,status="200"}': "0+998x60",
    'headrace:http_responses_total{LABELS,status="500"}': "0+2x60",
    'vllm:admission_rejections_total{LABELS,reason="max_num_queued_reqs"}': "7x60",
    'vllm:time_to_first_token_seconds_bucket{LABELS,le="10.0"}': "0+100x60",
    'vllm:time_to_first_token_seconds_bucket{LABELS,le="+Inf"}': "0+100x60",
    "vllm:num_preemptions_total{LABELS}": "0+1x60",
}
"""Series of a server that nobody need look at."""

KEEPS_ENGINE = ("HeadraceEngineDown", "HeadraceEngineHangs", "HeadraceEngineRestarts")
"""Alerts on a series as it is; the others sum over engines."""


def test_every_alert_fires_and_none_without_cause(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(rules())
    tests = [_test(FIRING[alert.name], [(alert, True)]) for alert in ALERTS]
    tests.append(_test(QUIET, [(alert, False) for alert in ALERTS]))
    whole = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yml").write_text(json.dumps(whole))  # YAML knows JSON
    _promtool(tmp_path, "test", "rules", "test.yml")


def test_the_rules_and_the_dashboards_queries_are_promql(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(rules())
    _promtool(tmp_path, "check", "rules", "alerts.yml")
    queries = [target["expr"] for panel in json.loads(dashboard())["panels"] for target in panel["targets"]]
    recorded = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    _promtool(tmp_path, "check", "rules", "queries.yml")


def _test(series: dict[str, str], expected: list[tuple[Alert, bool]]) -> dict[str, object]:
    return {
        "interval": "1m",
        "input_series": [
            {"series": name.replace("LABELS", LABELS), "values": values} for name, values in series.items()
        ],
        "alert_rule_test": [
            {"eval_time": "59m", "alertname": alert.name, "exp_alerts": [_fired(alert)] if fires else []}
            for alert, fires in expected
        ],
    }


def _fired(alert: Alert) -> dict[str, dict[str, str]]:
    engine = {"engine": "0"} if alert.name in KEEPS_ENGINE else {}
    return {
        "exp_labels": {**SERVER, **engine, "severity": alert.severity},
        "exp_annotations": {"summary": alert.summary, "description": f"{alert.fix}. Model m on i."},
    }


def _promtool(directory: Path, *arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=directory, capture_output=True, check=False, timeout=60)
    if done.returncode:
        pytest.fail((done.stdout + done.stderr).decode())
