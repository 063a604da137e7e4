"""What is rendered is what the catalogue says, in both formats, and can be read by their parsers."""

from collections.abc import Iterable

import pytest
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from headrace.observe.catalogue import CATALOGUE, Metric
from headrace.observe.exposition import Exposition
from headrace.observe.metric_set import MetricSet

COMMON = ("some model", "0")
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; q=0.5, text/plain; version=0.0.4; q=0.3"
PROCESS = ("process_", "python_")


def rendered(series: MetricSet, accept: str = "", common: tuple[str, str] = COMMON) -> list[Family]:
    body, content_type = Exposition(series).render(common, accept)
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    return list((parse_open_metrics if accept else parse_text)(body.decode()))


def names(families: Iterable[Family]) -> list[str]:
    """As they are on the wire: the parsers take `_total` from a counter's name."""
    return [f"{each.name}_total" if each.type == "counter" else each.name for each in families]


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
def test_exactly_the_catalogue_is_exported(accept: str) -> None:
    exported = [name for name in names(rendered(MetricSet(), accept)) if not name.startswith(PROCESS)]
    assert exported == [name for metric in CATALOGUE for name in (metric.name, *metric.aliases)]


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
def test_kinds_help_and_labels_are_the_catalogues(accept: str) -> None:
    by_name = {name: metric for metric in CATALOGUE for name in (metric.name, *metric.aliases)}
    for family in rendered(filled(), accept):
        [name] = names([family])
        if name.startswith(PROCESS):
            continue
        metric = by_name[name]
        assert family.documentation == metric.help
        assert family.type == ("gauge" if metric.kind == "info" else metric.kind)
        extra = {"le"} if metric.kind == "histogram" else {"some"} if metric.kind == "info" else set()
        for sample in family.samples:
            assert {"model_name", "engine"} <= sample.labels.keys()
            assert set(sample.labels) - {"model_name", "engine"} <= {*metric.labels, *extra}


def test_every_metric_has_a_series_as_soon_as_its_source_has_told() -> None:
    assert not [family.name for family in rendered(filled()) if not family.samples]


def test_there_are_no_created_series() -> None:
    assert not [sample for family in rendered(filled()) for sample in family.samples if "_created" in sample.name]


def test_both_formats_hold_the_same() -> None:
    assert samples_of(rendered(filled())) == samples_of(rendered(filled(), OPEN_METRICS))


def test_two_sets_share_nothing() -> None:
    one, other = MetricSet(), MetricSet()
    one.number("vllm:prompt_tokens_total").value = 7
    one.histogram("vllm:request_params_n").observe(1)
    assert other.number("vllm:prompt_tokens_total").value == 0
    assert other.histogram("vllm:request_params_n").count == 0


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
@pytest.mark.parametrize("name", ['with "quotes"', "back\\slash", "new\nline", "Straße 🙂"])
def test_any_name_of_a_model_survives(accept: str, name: str) -> None:
    family = next(each for each in rendered(MetricSet(), accept, (name, "0")) if each.samples)
    assert family.samples[0].labels["model_name"] == name


def test_names_are_unique_and_say_what_they_are() -> None:
    every = [name for metric in CATALOGUE for name in (metric.name, *metric.aliases)]
    assert len(set(every)) == len(every)
    for metric in CATALOGUE:
        assert metric.kind != "counter" or metric.name.endswith("_total")
        assert metric.kind != "histogram" or list(metric.buckets) == sorted(set(metric.buckets))
        assert metric.help and not metric.help.endswith(".")


def filled() -> MetricSet:
    """A set in which every metric has a series."""
    series = MetricSet()
    for metric in CATALOGUE:
        _fill(series, metric)
    return series


def _fill(series: MetricSet, metric: Metric) -> None:
    if metric.kind == "histogram":
        series.histogram(metric.name).observe(0.75)
    elif metric.kind == "info":
        series.tell(metric.name, {"some": "label"})
    else:
        series.number(metric.name, *(metric.values[:1] or metric.labels)).value = 3


def samples_of(families: Iterable[Family]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if not family.name.startswith(PROCESS)
    }
