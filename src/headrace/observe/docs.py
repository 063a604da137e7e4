"""docs/metrics.md, made from the catalogue: `python -m headrace.observe.docs > docs/metrics.md`."""

from collections.abc import Iterable, Iterator

from headrace.observe.absent import ABSENT
from headrace.observe.catalogue import CATALOGUE, COMMON_LABELS, Metric

_HEAD = f"""\
# Metrics

`GET /metrics` shows all of them, to everybody, in Prometheus' text format or, to a client that accepts it, in
OpenMetrics. It answers also while the model loads and while the engine is dead. Names and labels are vLLM's where vLLM
has one, so its dashboards, autoscalers and routers work unchanged; old names that some of them still ask for are kept
as second names. Every series also has the labels {" and ".join(f"`{each}`" for each in COMMON_LABELS)}: the first
served name, and `0`. Counters go on when the engine is restarted, and begin at 0 with the server.

A request with `n` sequences counts as `n` where a line says sequences, as in vLLM; its prompt counts once, as in the
`usage` that the client gets. Histograms of times and sizes hold sequences that ended by themselves (`stop`, `length`);
those that were cut off are in `vllm:request_success_total` only.

`process_*` and `python_*` tell of the HTTP process; they are prometheus_client's. There are no `_created` series.

This page is generated from `src/headrace/observe/catalogue.py` by `python -m headrace.observe.docs`.
"""

_TABLE_HEAD = "| name | kind | unit | labels | what it tells | since |\n|---|---|---|---|---|---|\n"


def markdown() -> str:
    """The whole page."""
    ours = [metric for metric in CATALOGUE if metric.name.startswith("headrace:")]
    vllms = [metric for metric in CATALOGUE if metric not in ours]
    return "\n".join(
        [
            _HEAD,
            "## vLLM's\n",
            _table(vllms),
            "## Headrace's own\n",
            _table(ours),
            "## Second names\n",
            "".join(_second_names()),
            "## Buckets\n",
            "".join(_buckets()),
            "## What vLLM has and Headrace has not\n",
            "".join(f"- `{name}`: {why}\n" for name, why in ABSENT.items()),
        ]
    ).rstrip("\n")


def _table(metrics: Iterable[Metric]) -> str:
    return _TABLE_HEAD + "".join(_row(metric) for metric in metrics)


def _row(metric: Metric) -> str:
    cells = [f"`{metric.name}`", metric.kind, metric.unit, _labels(metric), metric.help, metric.since]
    return f"| {' | '.join(cells)} |\n"


def _labels(metric: Metric) -> str:
    if metric.values:
        return f"`{metric.labels[0]}`: {', '.join(f'`{value}`' for value in metric.values)}"
    return ", ".join(f"`{label}`" for label in metric.labels)


def _second_names() -> Iterator[str]:
    for metric in CATALOGUE:
        for alias in metric.aliases:
            yield f"- `{alias}` is `{metric.name}`\n"


def _buckets() -> Iterator[str]:
    names: dict[tuple[float, ...], list[str]] = {}
    for metric in CATALOGUE:
        if metric.buckets:
            names.setdefault(metric.buckets, []).append(f"`{metric.name}`")
    for buckets, users in names.items():
        yield f"- {', '.join(users)}: {', '.join(f'{bound:g}' for bound in buckets)}\n"


if __name__ == "__main__":
    print(markdown())
