"""The bar of long calls in a terminal and in a log; `tests/test_notebooks.py` has it in a notebook."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from headrace.engine.progress_bar import ProgressBar
with ProgressBar("Loading weights", 3, after_seconds={after}) as bar:
    for number in bar.over(range(3)):
        print("layer", number)
assert "rich" not in sys.modules or {seen}
"""


def code(*, after: float, seen: bool) -> list[str]:
    return [sys.executable, "-c", CODE.format(after=after, seen=seen)]


def in_a_terminal(command: list[str]) -> str:
    """What a terminal shows as the command's standard error."""
    ours, theirs = pty.openpty()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:  # how a terminal ends that nobody writes to any more
        pass
    finally:
        os.close(ours)
    assert done.returncode == 0, shown
    return shown.decode()


def test_a_terminal_shows_it_full_at_the_end() -> None:
    assert re.findall(r"\d/3", in_a_terminal(code(after=0, seen=True)))[-1] == "3/3"


def test_a_short_call_shows_none() -> None:
    assert in_a_terminal(code(after=60, seen=False)) == ""


def test_a_log_has_none(tmp_path: Path) -> None:
    done = subprocess.run(code(after=0, seen=False), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["layer 0", "layer 1", "layer 2"]
