"""Where a report goes: sentences are folded at a terminal's edge, and stay whole in a pipe, where others read them."""

import shutil
import sys
import textwrap

from rich.console import Console
from rich.text import Text


class Paper:
    """Standard output. Colours are a terminal's only; a line never ends in spaces."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True, markup=False)
        self._columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def line(self, text: str | Text = "") -> None:
        """A line as it is: a table's, a command to copy, a bar."""
        self._console.print(text)

    def sentence(self, text: str, indent: str = "  ") -> None:
        """A sentence; what does not fit a terminal's line goes on, two columns further in, on the next."""
        if self._columns is None:
            self.line(indent + text)
            return
        further = indent + "  "
        folded = textwrap.wrap(
            text,
            max(40, self._columns),
            initial_indent=indent,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self.line("\n".join(folded))
