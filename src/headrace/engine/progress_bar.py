"""A bar that says how far a long call is, wherever that can be seen.

In a notebook it is one output that is changed in place and stays as it was last, also in the saved notebook; it needs
no widgets. In a terminal it is rich's. In a log there is none.
"""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from headrace.core.screen import screen

Item = TypeVar("Item")

_INTERVAL_SECONDS = 0.1


class _Shown(Protocol):
    """A bar on some screen."""

    def show(self, done: int, note: str) -> None:
        """Change what is seen."""
        ...

    def close(self) -> None:
        """Let it stay as it is, or vanish."""
        ...


class ProgressBar:
    """Counts to `total` while it is entered; nothing is shown before `after_seconds`, or if it is not `enabled`."""

    def __init__(self, label: str, total: int, *, enabled: bool = True, after_seconds: float = 0.0) -> None:
        self._label, self._total = label, total
        self._screen = screen() if enabled else None
        self._due = time.monotonic() + after_seconds
        self._shown: _Shown | None = None
        self._done, self._note = 0, ""

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown.show(self._done, self._note)
            self._shown.close()

    def advance(self, note: str = "") -> None:
        """One more is done."""
        self._done, self._note = self._done + 1, note
        self._show()

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, each counted when the next is asked for."""
        for item in items:
            yield item
            self.advance()

    def _show(self) -> None:
        now = time.monotonic()
        if self._screen is None or now < self._due:
            return
        self._due = now + _INTERVAL_SECONDS
        if self._shown is None:
            self._shown = (_InNotebook if self._screen == "notebook" else _InTerminal)(self._label, self._total)
        self._shown.show(self._done, self._note)


class _InTerminal:
    """A line of rich's, which keeps whatever else is printed meanwhile above it."""

    def __init__(self, label: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
        self._task = self._bar.add_task("", total=total, note="")
        self._bar.start()

    def show(self, done: int, note: str) -> None:
        """Change what is seen."""
        self._bar.update(self._task, completed=done, note=note)

    def close(self) -> None:
        """It stays as it is."""
        self._bar.stop()


class _InNotebook:
    """One output of the cell: HTML, and plain text where HTML is not shown."""

    def __init__(self, label: str, total: int) -> None:
        from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

        self._label, self._total = label, total
        self._handle: Any = display(self._mime(0, ""), raw=True, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]

    def show(self, done: int, note: str) -> None:
        """Change what is seen."""
        self._handle.update(self._mime(done, note), raw=True)

    def close(self) -> None:
        """It stays as it is."""

    def _mime(self, done: int, note: str) -> dict[str, str]:
        text = f"{self._label}: {done}/{self._total}" + (f", {note}" if note else "")
        bar = f'<progress value="{done}" max="{self._total}" style="width: 16em"></progress>'
        return {"text/plain": text, "text/html": f"<div>{bar} {text}</div>"}
