"""The fixtures of `running_server`, and `headrace plan` run in this process, for this folder's tests."""

import json
import sys

import pytest
from running_server import model_text, server, start_server, tokenizer_directory

from headrace.cli import main

__all__ = ["model_text", "server", "start_server", "tokenizer_directory"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `headrace plan`; the exit status, and what it printed and complained of."""

    def run_plan(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headrace", "plan", *arguments])
        status = main()
        return status, *capsys.readouterr()

    return run_plan


@pytest.fixture
def answer(run):
    """The answer as JSON."""

    def answer_of(*arguments: str) -> dict:
        status, printed, complaint = run(*arguments, "--json")
        assert status == 0, complaint
        return json.loads(printed)

    return answer_of
