"""`headrace chat` against a real server, and the conversation that a session keeps."""

import contextlib
import io
import socket
import sys
import threading
from collections.abc import Iterator

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


def test_a_key_is_sent(monkeypatch, capsys, start_server):
    server = start_server(say=SAID, options={"api_key": ("right",)})
    assert chat(monkeypatch, ["Hi"], "--url", server.url, "--api-key", "wrong") == 2
    assert "status 401" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    assert chat(monkeypatch, ["Hi"], "--url", server.url) == 0
    assert capsys.readouterr().out == f"{SAID}\n"


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


def test_help_lists_the_commands(monkeypatch, capsys):
    talk(monkeypatch, Recorder(), ["/help", "/exit"])
    said = capsys.readouterr().err
    assert all(f"  {command} " in said for command in ("/help", "/reset", "/system TEXT", "/exit"))


def test_ctrl_c_stops_the_answer_and_not_the_program(monkeypatch, capsys):
    heard = talk(monkeypatch, Recorder(KeyboardInterrupt()), ["a", KeyboardInterrupt(), "b"])
    assert heard[1] == [("user", "a"), ("assistant", "1"), ("user", "b")]
    assert "(stopped)" in capsys.readouterr().out


def test_a_failed_question_is_forgotten(monkeypatch, capsys):
    failure = HeadraceError("The context is full", kind=ErrorKind.INVALID_REQUEST)
    heard = talk(monkeypatch, Recorder(failure), ["a", "b"])
    assert heard[1] == [("user", "b")]
    assert "The context is full" in capsys.readouterr().err


def answering(*answers: bytes) -> Iterator[str]:
    """A server at the returned URL that gives each connection the next of `answers` and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for answer in answers:
                with listener.accept()[0] as connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


serving = contextlib.contextmanager(answering)
OK = b"HTTP/1.1 200 OK\r\n"
EVENT = b'data: {"choices": [{"delta": {"content": "Half an"}}]}\n\n'


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"\r\n" + EVENT,
        OK + b"\r\n" + EVENT + b'data: {"choi',
        OK + b"\r\n" + EVENT + b"data: 5\n\n",
        OK + b"Content-Length: 9000\r\n\r\n" + EVENT,
        OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\nff\r\nda" % (len(EVENT), EVENT),
    ],
    ids=["closed", "in mid-event", "no object", "shorter than said", "in mid-chunk"],
)
def test_a_connection_that_breaks_is_no_end_of_an_answer(monkeypatch, capsys, answer):
    with serving(answer) as url:
        assert chat(monkeypatch, ["Hi"], "model", "--url", url) == 1
    said = capsys.readouterr()
    assert "Half an" in said.out
    assert f"The connection to {url} ended in mid-answer" in said.err


@pytest.mark.parametrize("content", [b"<html>Welcome</html>", b"{}", b'{"data": []}', b"[]", b'{"data": {}}', b""])
def test_a_server_that_names_no_model_is_told(monkeypatch, capsys, content):
    with serving(OK + b"Content-Length: %d\r\n\r\n%b" % (len(content), content)) as url:
        assert chat(monkeypatch, ["Hi"], "--url", url) == 2
    assert f"{url} does not name a model" in capsys.readouterr().err


def test_what_is_no_http_is_told(monkeypatch, capsys):
    with serving(b"SSH-2.0-OpenSSH_9.6\r\n") as url:
        assert chat(monkeypatch, ["Hi"], "--url", url) == 1
    assert "There is no answer from" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:999999", "http://127.0.0.1:abc", "http://[::1", "ftp://x", "http://"]
)
def test_what_is_no_address_is_told(monkeypatch, capsys, url):
    assert chat(monkeypatch, ["Hi"], "--url", url) == 2
    assert f"'{url}' is not a server's address" in capsys.readouterr().err
