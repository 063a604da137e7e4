"""What a batch says on standard error: where the answers are while it runs, and the summary at its end."""

import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.batch.output import partial_of

if TYPE_CHECKING:
    from headrace.cli.batch.runner import BatchCounts

MAX_FAILURES_TOLD = 3
"""Of one status; how many more there are is told too."""


def say_where(target: Path) -> None:
    """Before it starts."""
    print(
        f"Until all are answered, the answers are in {partial_of(target)}; a run that is cut goes on with --resume",
        file=sys.stderr,
    )
    if target.exists():
        print(f"The {target} that is there is replaced then", file=sys.stderr)


def say_summary(counts: "BatchCounts", target: Path, seconds: float) -> None:
    """When all are answered."""
    resumed = f", {counts.resumed:,} were answered before" if counts.resumed else ""
    print(
        f"{target}: {counts.done - counts.failed:,} answered, {counts.failed:,} failed{resumed}, in {seconds:,.1f} s; "
        f"{counts.prompt_tokens:,} tokens in, {counts.completion_tokens:,} out",
        file=sys.stderr,
    )
    for line in failure_lines(counts.failures, target):
        print(f"  {line}", file=sys.stderr)


def failure_lines(failures: Counter[str], target: Path) -> list[str]:
    """The most frequent failures ("404: No such model") of each status, and how many more there are."""
    lines = []
    for status, group in groupby(sorted(failures.items(), key=_status), key=_status):
        of_status = Counter(dict(group)).most_common()
        lines += [f"{times:,} x {failure}" for failure, times in of_status[:MAX_FAILURES_TOLD]]
        if more := sum(times for _, times in of_status[MAX_FAILURES_TOLD:]):
            lines.append(f"and {more:,} more with status {status}, see {target}")
    return lines


def _status(counted: tuple[str, int]) -> str:
    return counted[0].partition(":")[0]
