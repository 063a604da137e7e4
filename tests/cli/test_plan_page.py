"""docs/plan.md: its examples are what the commands print, and it names every flag there is and no other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli import main

ROOT = Path(__file__).parents[2]
COMMANDS = (["plan"], ["plan", "compare"], ["plan", "prices", "show"], ["plan", "prices", "refresh"])


def test_the_examples_are_what_is_printed() -> None:
    command = [sys.executable, "scripts/plan_page.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_flag_is_on_the_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ""
    for command in COMMANDS:
        monkeypatch.setattr(sys, "argv", ["headrace", *command, "--help"])
        assert main() == 0
        shown += capsys.readouterr().out
    flags = {flag for start in re.findall(r"^  (-.*?)(?:  |$)", shown, re.MULTILINE) for flag in names(start)}
    section = (ROOT / "docs" / "plan.md").read_text().partition("## All flags")[2].partition("\n## ")[0]
    assert names(section) == flags - {"--help"}


def names(text: str) -> set[str]:
    """The flags in a text."""
    return set(re.findall(r"--[a-z][\w-]*", text))
