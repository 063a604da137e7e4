"""Where the progress of a long call can be seen: a notebook's output, a terminal, or nowhere."""

import sys
from typing import Literal

Screen = Literal["notebook", "terminal"]


def screen() -> Screen | None:
    """What shows standard error now; None for a file or a pipe, in which a bar would only leave broken lines."""
    if _in_notebook():
        return "notebook"
    return "terminal" if sys.stderr is not None and sys.stderr.isatty() else None


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this (Colab and Kaggle too); IPython in a terminal is a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
