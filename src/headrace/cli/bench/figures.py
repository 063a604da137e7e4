"""What all benchmarks report: the same names, as a table and as JSON. The names are those of `vllm bench serve`."""

import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.core.errors import HeadraceError

DEFAULT_PERCENTILES = (50.0, 90.0, 95.0, 99.0)

METRICS = ("ttft", "tpot", "itl", "e2el")
"""What is measured of a request."""

_LABELS = {
    "ttft": "Time to first token (TTFT)",
    "tpot": "Time per further token (TPOT)",
    "itl": "Between two tokens (ITL)",
    "e2el": "End to end (E2EL)",
    "send_delay": "Sent later than due by",
    "ttft_from_sending": "TTFT, had it begun then",
    "e2el_from_sending": "E2EL, had it begun then",
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of one metric, in milliseconds. Without values, there are no figures."""

    metric: str
    values: Sequence[float]

    @classmethod
    def of_seconds(cls, metric: str, seconds: Iterable[float | None]) -> "Distribution":
        """The distribution of times in seconds; None is left out."""
        return cls(metric, sorted(value * 1_000 for value in seconds if value is not None))

    def figures(self, percents: Sequence[float]) -> dict[str, float]:
        """`mean_ttft_ms`, `median_ttft_ms`, `std_ttft_ms`, `p99_ttft_ms`, for "ttft"."""
        if not self.values:
            return {}
        summary = {
            f"mean_{self.metric}_ms": statistics.fmean(self.values),
            f"median_{self.metric}_ms": percentile(self.values, 50),
            f"std_{self.metric}_ms": statistics.pstdev(self.values),
        }
        return summary | {f"p{percent:g}_{self.metric}_ms": percentile(self.values, percent) for percent in percents}


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; NaN for no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.nan


def print_report(
    title: str, counts: Mapping[str, object], distributions: Sequence[Distribution], percents: Sequence[float]
) -> None:
    """Print counts one a line, then a row for each distribution."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(title, markup=False)
    width = max(map(len, counts), default=0)
    for label, value in counts.items():
        console.print(f"  {label:<{width}}  {_shown(value)}", markup=False)
    table = Table()
    for column in ("ms", "mean", *(f"p{percent:g}" for percent in percents)):
        table.add_column(column, justify="left" if column == "ms" else "right")
    for each in distributions:
        if each.values:
            figures = [statistics.fmean(each.values), *(percentile(each.values, percent) for percent in percents)]
            table.add_row(_LABELS[each.metric], *(f"{figure:,.2f}" for figure in figures))
    if table.row_count:
        console.print(table)


def write_json(path: Path, report: Mapping[str, object]) -> None:
    """Write a report as one JSON object."""
    path.write_text(json.dumps(report, indent=2) + "\n")


def check_writable(path: Path, flag: str = "--json") -> None:
    """Raise `HeadraceError` before the run, which may take long, if its report cannot be written."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise HeadraceError(
            f"{flag} is {path}, which cannot be written",
            rule="It is a file in a directory that exists and may be written to",
            fix=f"Make {path.parent}, or name another file",
            param=flag.strip("-").replace("-", "_"),
        )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
