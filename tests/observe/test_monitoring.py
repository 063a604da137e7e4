"""Dashboards and alerts ask for metrics that exist, by labels that they have."""

import json
import re
from pathlib import Path

import pytest

from headrace.observe.alerts import ALERTS, rules
from headrace.observe.catalogue import CATALOGUE, COMMON_LABELS, Metric
from headrace.observe.dashboard import PANELS, dashboard
from headrace.observe.promql import names_in, where

FILES = Path(__file__).parents[2] / "examples" / "monitoring"
EXPRESSIONS = {
    **{alert.name: alert.expression for alert in ALERTS},
    **{f"{panel.title}: {legend}": query for panel in PANELS for legend, query in panel.queries.items()},
}
BY_SAMPLE: dict[str, Metric] = {
    sample: metric
    for metric in CATALOGUE
    for sample in (
        [f"{metric.name}{suffix}" for suffix in ("_bucket", "_sum", "_count")]
        if metric.kind == "histogram"
        else [metric.name]
    )
}
"""Every sample that there can be, under its first name."""


@pytest.mark.parametrize("where_it_is", EXPRESSIONS)
def test_every_metric_that_is_asked_for_exists(where_it_is: str) -> None:
    names = names_in(EXPRESSIONS[where_it_is])
    assert names and names <= BY_SAMPLE.keys()


@pytest.mark.parametrize("where_it_is", EXPRESSIONS)
def test_labels_that_are_asked_for_exist(where_it_is: str) -> None:
    expression = EXPRESSIONS[where_it_is]
    known = {*COMMON_LABELS, "instance", "le"}.union(*(BY_SAMPLE[name].labels for name in names_in(expression)))
    groups = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    assert groups <= known
    for label, value in re.findall(r'(\w+)="(\w+)"', expression):
        assert any(label in metric.labels and value in metric.values for metric in CATALOGUE)


def test_a_selection_reaches_every_metric_of_an_expression() -> None:
    narrowed = where('a="b"', 'rate(vllm:x_total{c="d"}[5m]) / vllm:y')
    assert narrowed == 'rate(vllm:x_total{a="b",c="d"}[5m]) / vllm:y{a="b"}'


def test_counters_are_asked_for_by_rate_and_gauges_as_they_are() -> None:
    """The rate of a gauge, or a counter as it is, means nothing; how many restarts there were is the exception."""
    for expression in EXPRESSIONS.values():
        for name in names_in(expression) - {"headrace:engine_restarts_total"}:
            rated = re.search(rf"rate\({re.escape(name)}[\[{{]", expression) is not None
            assert rated == (BY_SAMPLE[name].kind != "gauge"), expression


def test_the_files_are_what_is_generated() -> None:
    assert (FILES / "alerts.yml").read_text() == rules(), "run python -m headrace.observe.alerts"
    assert (FILES / "dashboard.json").read_text() == dashboard(), "run python -m headrace.observe.dashboard"


def test_panels_do_not_lie_over_each_other() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in json.loads(dashboard())["panels"]]
    assert len(set(places)) == len(places) == len(PANELS)
