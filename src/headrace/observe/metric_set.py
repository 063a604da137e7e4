"""All series of one server: each metric of the catalogue, with the accumulators that its series gather in."""

from collections.abc import Iterable, Mapping

from headrace.observe.accumulators import Histogram, Number
from headrace.observe.catalogue import CATALOGUE, Metric

LabelValues = tuple[str, ...]


class MetricSet:
    """The accumulators by metric and label values. Two sets share nothing."""

    def __init__(self, catalogue: Iterable[Metric] = CATALOGUE) -> None:
        self._metrics = {metric.name: metric for metric in catalogue}
        self._numbers: dict[str, dict[LabelValues, Number]] = {name: {} for name in self._metrics}
        self._histograms: dict[str, Histogram] = {}
        self._infos: dict[str, dict[str, str]] = {}
        for metric in self._metrics.values():
            self._begin(metric)

    @property
    def metrics(self) -> Iterable[Metric]:
        """The catalogue, in its order."""
        return self._metrics.values()

    def number(self, name: str, *labels: str) -> Number:
        """The counter or gauge with these label values; made if it is not there."""
        return self._numbers[name].setdefault(labels, Number())

    def numbers(self, name: str) -> Mapping[LabelValues, Number]:
        """Every series of a counter or gauge, by its label values."""
        return self._numbers[name]

    def histogram(self, name: str) -> Histogram:
        """The histogram of this name."""
        return self._histograms[name]

    def info(self, name: str) -> Mapping[str, str]:
        """The labels of an info; empty while its source has told nothing."""
        return self._infos[name]

    def tell(self, name: str, labels: Mapping[str, str]) -> None:
        """Set the labels of an info."""
        self._infos[name] = dict(labels)

    def replace(self, name: str, values: Mapping[str, float]) -> None:
        """Set every series of a gauge with one label; series that `values` lacks go."""
        self._numbers[name].clear()
        for label, value in values.items():
            self.number(name, label).value = value

    def _begin(self, metric: Metric) -> None:
        if metric.kind == "histogram":
            self._histograms[metric.name] = Histogram(metric.buckets)
        elif metric.kind == "info":
            self._infos[metric.name] = {}
        elif not metric.labels:
            self.number(metric.name)
        for value in metric.values:
            self.number(metric.name, value)
