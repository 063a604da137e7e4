"""Metrics as text, in Prometheus' own format or in OpenMetrics for a client that asks for it.

Written here and not by prometheus_client, whose OpenMetrics writer turns the colon of `vllm:` into an underscore unless
the client asks it not to, and which takes three times as long, on the thread that the streams run on. There are no
`_created` series: they would double the counters, and nothing that reads vLLM's metrics reads them.
"""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric as Family

from headrace.observe.families import families
from headrace.observe.metric_set import MetricSet

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Exposition:
    """What /metrics shows: one server's series, and the process that they are counted in."""

    def __init__(self, series: MetricSet) -> None:
        self._series = series
        self._process = CollectorRegistry(auto_describe=False)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._process)

    def render(self, common: Sequence[str], accept: str) -> tuple[bytes, str]:
        """The text of now and its content type. `common` are the common labels' values, `accept` a header's value."""
        shown = list(self._families(common))
        if "application/openmetrics-text" in accept:
            return _text(shown, counter_suffix="", end="# EOF\n"), OPEN_METRICS
        return _text(shown, counter_suffix="_total", end=""), TEXT

    def _families(self, common: Sequence[str]) -> Iterator[Family]:
        yield from families(self._series, common)
        yield from self._process.collect()


def _text(shown: Iterable[Family], *, counter_suffix: str, end: str) -> bytes:
    """The two formats differ in a counter's name in its own description, and in the last line."""
    lines: list[str] = []
    for family in shown:
        name = family.name + counter_suffix if family.type == "counter" else family.name
        lines.append(f"# HELP {name} {_escaped(family.documentation)}\n# TYPE {name} {family.type}\n")
        for sample in family.samples:
            labels = ",".join([f'{label}="{_escaped(value)}"' for label, value in sample.labels.items()])
            lines.append(f"{sample.name}{{{labels}}} {sample.value}\n" if labels else f"{sample.name} {sample.value}\n")
    lines.append(end)
    return "".join(lines).encode(errors="replace")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
