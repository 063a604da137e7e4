"""What is said to somebody who types a flag or a command that is not there, and help that is read in a terminal."""

import subprocess
import sys

import pytest

from headrace.cli import main
from headrace.cli.suggestions import COMMANDS_ELSEWHERE, FLAGS_ELSEWHERE

COMMANDS = [["serve"], ["chat"], ["run-batch"], ["bench", "serve"], ["bench", "throughput"], ["bench", "latency"]]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["headrace", *arguments])
    return main()


@pytest.fixture
def help_of(monkeypatch, capsys):
    def shown(*command):
        assert run(monkeypatch, *command, "--help") == 0
        return capsys.readouterr().out

    return shown


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["serve", "--max-model-length", "5"], "--max-model-len"),
        (["serve", "--max-model-length=5"], "--max-model-len"),
        (["serve", "--max_model_len", "5"], "--max-model-len"),
        (["serve", "--gpu-memory-utilisation", "0.5"], "--gpu-memory-utilization"),
        (["serve", "--context-length", "4096"], "--max-model-len"),
        (["serve", "--mem-fraction-static", "0.5"], "--gpu-memory-utilization"),
        (["serve", "-tp", "4"], "--tensor-parallel-size"),
        (["chat", "--key", "x"], "--api-key"),
        (["chat", "--base-url", "x"], "--url"),
        (["run-batch", "--input", "x"], "--input-file"),
        (["bench", "serve", "--url", "x"], "--base-url"),
        (["bench", "serve", "--num-prompt", "5"], "--num-prompts"),
        (["bench", "serve", "--qps", "5"], "--request-rate"),
        (["bench", "throughput", "--input-length", "5"], "--input-len"),
        (["srve"], "headrace serve"),
        (["start"], "headrace serve"),
        (["batch"], "headrace run-batch"),
        (["runbatch"], "headrace run-batch"),
        (["bench", "serv"], "headrace bench serve"),
        (["benchmark"], "headrace bench"),
    ],
)
def test_what_was_meant_is_suggested(monkeypatch, capsys, typed, meant):
    assert run(monkeypatch, *typed) == 2
    said = capsys.readouterr().err
    assert f"Did you mean {meant}?" in said or f"Did you mean `{meant}`?" in said
    assert said.startswith("error: ") and len(said.splitlines()) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_without_its_value_is_told_with_the_command(monkeypatch, capsys, command):
    assert run(monkeypatch, *command, "--seed") == 2
    assert f"See `headrace {' '.join(command)} --help`" in capsys.readouterr().err


def test_what_is_done_without_is_told(monkeypatch, capsys):
    assert run(monkeypatch, "bench", "serve", "--tokenizer", "x") == 2
    assert "Leave it out: prompts are made of words" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [["serve", "--lora-dir", "x"], ["serve", "--xyz"], ["serve", "-z"], ["xyz"]])
def test_nothing_is_suggested_at_random(monkeypatch, capsys, typed):
    assert run(monkeypatch, *typed) == 2
    said = capsys.readouterr().err
    assert "Did you mean" not in said and "--help" in said


def test_every_suggestion_exists(help_of):
    flags = " ".join(help_of(*command) for command in COMMANDS)
    assert [flag for flag in FLAGS_ELSEWHERE.values() if f"{flag} " not in flags] == []
    commands = help_of()
    assert [command for command in COMMANDS_ELSEWHERE.values() if f"\n  {command} " not in commands] == []
    assert [flag for flag in FLAGS_ELSEWHERE if f" {flag} " in flags] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_groups_examples_and_a_word_on_each_flag(help_of, command):
    shown = help_of(*command)
    assert f"  headrace {' '.join(command)}" in shown, "an example"
    sections = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert {"Options:"} < set(sections)
    assert max(map(len, shown.splitlines())) <= 110
    assert shown.splitlines()[-1].split() == ["-h,", "--help", "Show", "this", "message", "and", "exit."]


@pytest.mark.parametrize("command", [[], ["bench"]])
def test_no_command_shows_the_commands(monkeypatch, capsys, command):
    assert run(monkeypatch, *command) == 2
    said = capsys.readouterr().err
    assert "Commands:" in said and "error" not in said


def test_help_says_each_command_in_one_line(help_of):
    for command in ((), ("bench",)):
        assert "..." not in help_of(*command).partition("Commands:")[2]


def test_help_reads_no_package_that_takes_long():
    heavy = ("torch", "numpy", "uvicorn", "tokenizers", "huggingface_hub", "rich.console")
    code = (
        "import sys; sys.argv = ['headrace', 'serve', '--help']; from headrace.cli import main; main(); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert shown.splitlines()[-1] == "[]"
