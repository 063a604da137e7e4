"""`headrace chat` against a real server, and the conversation that a session keeps."""

import io
import sys

import pytest

from headrace.cli import main
from headrace.cli.chat_session import ChatSession
from headrace.core.errors import ErrorKind, HeadraceError

SAID = "Hello wörld 🙂!"


def chat(monkeypatch, lines, *arguments):
    monkeypatch.setattr(sys, "argv", ["headrace", "chat", *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    return main()


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_piped_lines_are_answered_by_a_server(monkeypatch, capsys, server, ending):
    assert chat(monkeypatch, ["Hi", "", "How are you?"], "--url", server.url + ending) == 0
    assert capsys.readouterr().out == f"{SAID}\n{SAID}\n"


def test_the_answer_is_limited_as_asked(monkeypatch, capsys, server):
    assert chat(monkeypatch, ["Hi"], "alias", "--url", server.url, "--max-tokens", "5", "--temperature", "0") == 0
    assert capsys.readouterr().out == "Hello\n"


def test_what_the_server_refuses_is_told(monkeypatch, capsys, server):
    assert chat(monkeypatch, ["Hi"], "nobody", "--url", server.url) == 2
    assert "The model 'nobody' does not exist here" in capsys.readouterr().err
    assert chat(monkeypatch, ["x" * 300], "--url", server.url) == 2
    assert "context holds 256 tokens" in capsys.readouterr().err


def test_an_engine_that_dies_in_an_answer_is_told(monkeypatch, capsys, start_server):
    server = start_server(say="abc" * 100, max_model_len=1_000, die_after_steps=20)
    assert chat(monkeypatch, ["Hi"], "--url", server.url) == 1
    assert "SIGKILL" in capsys.readouterr().err


class Recorder:
    """A speaker that answers with a number, and may be interrupted or fail."""

    def __init__(self, *failures):
        self.heard = []
        self._failures = list(failures)

    def speak(self, messages, write):
        self.heard.append([(message["role"], message["content"]) for message in messages])
        write(str(len(self.heard)))
        if self._failures and (failure := self._failures.pop(0)):
            raise failure


def talk(monkeypatch, speaker, lines, system=None):
    answers = iter(lines)

    def typed(prompt):
        line = next(answers, None)
        if line is None:
            raise EOFError
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", typed)
    ChatSession(speaker, system, interactive=True).run()
    return speaker.heard


def test_the_conversation_is_kept(monkeypatch):
    heard = talk(monkeypatch, Recorder(), ["a", "b"], system="be brief")
    assert heard[1] == [("system", "be brief"), ("user", "a"), ("assistant", "1"), ("user", "b")]


def test_commands(monkeypatch, capsys):
    heard = talk(monkeypatch, Recorder(), ["a", "/reset", "b", "/system be kind", "/what", "c", "/exit", "d"])
    assert heard[1] == [("user", "b")]
    assert heard[2] == [("system", "be kind"), ("user", "b"), ("assistant", "2"), ("user", "c")]
    assert len(heard) == 3
    assert "/what is not a command" in capsys.readouterr().err


def test_ctrl_c_stops_the_answer_and_not_the_program(monkeypatch, capsys):
    heard = talk(monkeypatch, Recorder(KeyboardInterrupt()), ["a", KeyboardInterrupt(), "b"])
    assert heard[1] == [("user", "a"), ("assistant", "1"), ("user", "b")]
    assert "(stopped)" in capsys.readouterr().out


def test_a_failed_question_is_forgotten(monkeypatch, capsys):
    failure = HeadraceError("The context is full", kind=ErrorKind.INVALID_REQUEST)
    heard = talk(monkeypatch, Recorder(failure), ["a", "b"])
    assert heard[1] == [("user", "b")]
    assert "The context is full" in capsys.readouterr().err
