"""The accumulators of a `MetricSet` as prometheus_client's metric families, each sample with all its labels."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family

from headrace.observe.accumulators import Histogram
from headrace.observe.catalogue import COMMON_LABELS, Metric
from headrace.observe.metric_set import MetricSet


def families(series: MetricSet, common: Sequence[str]) -> Iterator[Family]:
    """Every metric under each of its names, in the catalogue's order. `common` are the common labels' values."""
    for metric in series.metrics:
        for name in (metric.name, *metric.aliases):
            yield _MAKERS[metric.kind](series, metric, name, tuple(common))


def _counter(series: MetricSet, metric: Metric, name: str, common: tuple[str, ...]) -> Family:
    family = CounterMetricFamily(name, metric.help, labels=(*COMMON_LABELS, *metric.labels))
    for labels, number in series.numbers(metric.name).items():
        family.add_metric((*common, *labels), number.value)
    return family


def _gauge(series: MetricSet, metric: Metric, name: str, common: tuple[str, ...]) -> Family:
    family = GaugeMetricFamily(name, metric.help, labels=(*COMMON_LABELS, *metric.labels))
    for labels, number in series.numbers(metric.name).items():
        family.add_metric((*common, *labels), number.value)
    return family


def _histogram(series: MetricSet, metric: Metric, name: str, common: tuple[str, ...]) -> Family:
    family = HistogramMetricFamily(name, metric.help, labels=COMMON_LABELS)
    histogram = series.histogram(metric.name)
    family.add_metric(common, list(_cumulative(histogram)), histogram.sum)
    return family


def _info(series: MetricSet, metric: Metric, name: str, common: tuple[str, ...]) -> Family:
    """A gauge that is always 1: vLLM's are, and OpenMetrics' info type would rename it."""
    labels = series.info(metric.name)
    family = GaugeMetricFamily(name, metric.help, labels=(*COMMON_LABELS, *labels))
    if labels:
        family.add_metric((*common, *labels.values()), 1)
    return family


def _cumulative(histogram: Histogram) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        yield "+Inf" if bound == float("inf") else str(bound), total


_MAKERS = {"counter": _counter, "gauge": _gauge, "histogram": _histogram, "info": _info}
