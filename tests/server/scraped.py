"""What /metrics says, as numbers that tests compare."""

from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

COMMON = {"model_name", "engine"}

NOT_COUNTED = ("process_", "python_", "headrace:http_responses_total")
"""What moves by itself, or by being looked at."""

Key = tuple[str, frozenset[tuple[str, str]]]


def scrape(url: str) -> "Scrape":
    """What the server at `url` says now."""
    with httpx.Client(verify=False, timeout=20) as client:  # httpx.get would first read every certificate
        answer = client.get(f"{url}/metrics")
    assert answer.status_code == 200
    return Scrape(answer.text)


class Scrape:
    """One scrape. Labels are those besides the common ones."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._values: Mapping[Key, float] = {
            (sample.name, frozenset(each for each in sample.labels.items() if each[0] not in COMMON)): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one series."""
        return self._values[name, frozenset(labels.items())]

    def changed_since(self, before: "Scrape") -> dict[str, float]:
        """How far each counter, and each histogram's count and sum, has moved, if it has: `name{label}` -> by."""
        moved = {}
        for (name, labels), value in self._values.items():
            by = value - before._values.get((name, labels), 0.0)
            if by and name.endswith(("_total", "_count", "_sum")) and not name.startswith(NOT_COUNTED):
                moved["".join([name, *(f"{{{label}}}" for _, label in labels)])] = by
        return moved

    def buckets(self, name: str) -> dict[str, float]:
        """How many values fell into each bucket of a histogram: `le` -> count, not cumulative, without empty ones."""
        family = next(each for each in self.families if each.name == name)
        counts, before = {}, 0.0
        for sample in family.samples:
            if sample.name == f"{name}_bucket":
                if sample.value > before:
                    counts[sample.labels["le"]] = sample.value - before
                before = sample.value
        return counts
