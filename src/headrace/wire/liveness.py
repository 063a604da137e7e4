"""How the engine process learns that the front is gone: the front holds the other end of its standard input.

A pipe closes however its holder dies, kill -9 included, which a signal or a parent process id does not tell reliably.
"""

import os
import threading
from collections.abc import Callable


def watch_parent(on_gone: Callable[[], None], *, stdin_fd: int = 0) -> None:
    """Call `on_gone`, from a thread of its own, when the other end of `stdin_fd` closes."""
    # os.read, not sys.stdin: a thread that waits inside a buffered reader holds its lock when the interpreter ends.
    threading.Thread(target=_wait, args=(stdin_fd, on_gone), name="headrace-liveness", daemon=True).start()


def _wait(stdin_fd: int, on_gone: Callable[[], None]) -> None:
    while os.read(stdin_fd, 4_096):
        continue
    on_gone()
