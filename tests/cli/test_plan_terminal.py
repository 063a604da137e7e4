"""How a plan looks: whole lines without colour in a pipe, folded and coloured in a terminal of 80 columns."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

COMMAND = [sys.executable, "-m", "headrace", "plan", "meta-llama/Llama-3.1-70B", "--explain"]


@pytest.fixture(scope="module")
def piped() -> str:
    """What a pipe gets."""
    return subprocess.run(COMMAND, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def in_a_terminal() -> str:
    """What a terminal of 80 columns gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(COMMAND, stdout=theirs, env={**environment, "TERM": "xterm-256color"})
    os.close(theirs)
    pieces = []
    try:
        while piece := os.read(ours, 65536):
            pieces.append(piece)
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return b"".join(pieces).decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_pipe_gets_no_colours_and_no_spaces_at_the_end(piped: str) -> None:
    assert "\x1b" not in piped
    assert [line for line in piped.splitlines() if line.endswith(" ")] == []


def test_a_terminals_lines_fit_but_for_the_command_to_copy(in_a_terminal: str) -> None:
    lines = plain(in_a_terminal).splitlines()
    long = [line for line in lines if len(line) > 80]
    assert len(long) == 1 and long[0].startswith("  headrace serve meta-llama/Llama-3.1-70B --max-model-len 131072")
    assert [line for line in lines if line.endswith(" ")] == []


def test_both_say_the_same(piped: str, in_a_terminal: str) -> None:
    assert plain(in_a_terminal).split() == piped.split()


def test_the_bar_is_coloured_and_has_a_cell_for_each_sixtieth(in_a_terminal: str) -> None:
    (bar,) = (line for line in in_a_terminal.splitlines() if plain(line).startswith("  [#"))
    cells = plain(bar)[3:-1]
    assert len(cells) == 60 and plain(bar).endswith("]")
    weights = re.search(r"# Weights +([\d.]+) GiB", plain(in_a_terminal))
    assert weights is not None
    assert cells.count("#") == round(float(weights[1]) / 139.7 * 60)
    assert cells.count(".") == 6, "a tenth of the GPU is not used"
    assert bar.startswith("  [\x1b[36m#") and bar.count("\x1b[0m") >= 3
