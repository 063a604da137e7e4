"""One line on standard error that says how far a long command is."""

import sys
import time

_TERMINAL_SECONDS, _LOG_SECONDS = 0.2, 10.0


class ProgressLine:
    """In a terminal the line is written over itself; in a log it comes every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._interval = _TERMINAL_SECONDS if self._terminal else _LOG_SECONDS
        self._next = time.monotonic() + self._interval
        self._shown = 0

    def due(self) -> bool:
        """Whether it is time to say something new, so that nobody makes texts that are not shown."""
        return time.monotonic() >= self._next

    def show(self, text: str) -> None:
        """Say it now."""
        self._next = time.monotonic() + self._interval
        if self._terminal:
            print(f"\r{text:<{self._shown}}", end="", file=sys.stderr, flush=True)
            self._shown = len(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave no trace in a terminal."""
        if self._terminal and self._shown:
            print(f"\r{'':<{self._shown}}\r", end="", file=sys.stderr, flush=True)
            self._shown = 0
