"""`headrace run-batch` against a real server: answers as over HTTP, wrong lines beside right ones, and cut runs."""

import asyncio
import gzip
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from running_server import FakeEngineProcess

from headrace.cli import main
from headrace.cli.batch.asking import SENDINGS, Asker
from headrace.cli.batch.lines import BadLine, BatchRequest, LineParser
from headrace.cli.batch.local_server import LocalServer
from headrace.cli.batch.output import OrderedAnswers, OutputFile
from headrace.cli.batch.said import failure_lines
from headrace.cli.client.http import Answer
from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.testing.fake_engine import Script

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SAID = "Hello wörld 🙂!"


def request(custom_id, url=COMPLETIONS, **body):
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"prompt": "Hi", **body}}


def chat_request(custom_id, **body):
    messages = [{"role": "user", "content": "Hi"}]
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"messages": messages, **body}}


@pytest.fixture
def files(tmp_path):
    """(write the input, its path, the output's path, read the output)"""

    class Files:
        source, target, partial = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"

        def write(self, *lines):
            raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
            self.source.write_bytes(b"\n".join(raw) + b"\n")

        def read(self, path=None):
            return [json.loads(line) for line in (path or self.target).read_text().splitlines()]

    return Files()


def run(monkeypatch, files, *flags):
    monkeypatch.setattr(sys, "argv", ["headrace", "run-batch", str(files.source), str(files.target), *flags])
    return main()


def test_answers_are_those_of_the_server(monkeypatch, capsys, files, server):
    files.write(chat_request("1", max_tokens=50), request("2", model="alias", max_tokens=50, n=2))
    assert run(monkeypatch, files, "--url", server.url) == 0
    chat, completion = files.read()
    assert [chat["custom_id"], completion["custom_id"]] == ["1", "2"]
    for answer in (chat, completion):
        assert (answer["error"], answer["response"]["status_code"]) == (None, 200)
        assert answer["response"]["request_id"] and answer["id"].startswith("batch_req_")
    direct = server.post(CHAT, chat_request("1", max_tokens=50)["body"]).json()
    body = chat["response"]["body"]
    assert body["choices"] == direct["choices"] and body["usage"] == direct["usage"]
    assert body["choices"][0]["message"]["content"] == SAID
    assert completion["response"]["body"]["model"] == "alias"
    assert "2 answered, 0 failed" in capsys.readouterr().err
    assert not files.partial.exists()


def test_a_wrong_line_stops_no_other(monkeypatch, capsys, files, server):
    files.write(
        b"\xef\xbb\xbf" + json.dumps(request("first")).encode(),
        b"",
        b"not json",
        b"[1, 2]",
        request("first"),
        {"custom_id": "no body", "url": COMPLETIONS},
        request("embed", url="/v1/embeddings"),
        {**request("got"), "method": "GET"},
        request("streamed", stream=True),
        {**request("text"), "body": "text"},
        request("unknown", model="nobody"),
        request("field", no_such_field=1),
        b'{"custom_id": "\xff"}',
        b"[" * 100_000,
        request("last"),
    )
    assert run(monkeypatch, files, "--url", server.url) == 0
    answers = files.read()
    statuses = [answer["response"]["status_code"] for answer in answers]
    assert statuses == [200, 400, 400, 400, 400, 400, 400, 400, 400, 404, 400, 400, 400, 200]
    expected = ["first", None, None, "first", "no body", "embed", "got", "streamed", "text", "unknown", "field"]
    assert [answer["custom_id"] for answer in answers] == [*expected, None, None, "last"]
    refused = [answer for answer in answers if answer["custom_id"] in ("unknown", "field")]
    for answer, body in zip(refused, [request("u", model="nobody"), request("f", no_such_field=1)], strict=True):
        assert answer["response"]["body"] == server.post(COMPLETIONS, body["body"]).json()
        assert answer["error"] is None
    messages = [answer["error"]["message"] for answer in answers if answer["error"]]
    assert [int(message.split()[1]) for message in messages] == [3, 4, 5, 6, 7, 8, 9, 10, 13, 14]
    assert "of line 1" in messages[2]
    envelopes = [answer["response"]["body"]["error"] for answer in answers if answer["error"]]
    assert all(set(envelope) == {"message", "type", "param", "code"} for envelope in envelopes)
    assert "2 answered, 12 failed" in capsys.readouterr().err


def test_order_is_kept_and_concurrency_bounded(monkeypatch, files, start_server):
    server = start_server(echo_prompt=True, step_seconds=0.002)
    lengths = [40 if number % 7 == 0 else 2 for number in range(60)]
    files.write(*(request(str(number), prompt="x" * length) for number, length in enumerate(lengths)))
    assert run(monkeypatch, files, "--url", f"{server.url}/v1", "--max-concurrency", "5") == 0
    answers = files.read()
    assert [answer["custom_id"] for answer in answers] == [str(number) for number in range(60)]
    assert [answer["response"]["body"]["usage"]["prompt_tokens"] for answer in answers] == lengths


def cut_run(files, server, tmp_path, number):
    """A run in a process of its own that is killed in its middle."""
    arguments = [sys.executable, "-m", "headrace", "run-batch", "-i", str(files.source), "-o", str(files.target)]
    process = subprocess.Popen(
        [*arguments, "--url", server.url, "--max-concurrency", "3"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not (files.partial.exists() and len(files.partial.read_bytes().splitlines()) >= 5):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    return process.communicate(timeout=30)[1], process.returncode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_cut_is_resumed(monkeypatch, capsys, files, start_server, tmp_path, number):
    server = start_server(echo_prompt=True, step_seconds=0.01)
    files.write(*(request(str(each), prompt="x" * 5) for each in range(100)))
    said, status = cut_run(files, server, tmp_path, number)
    assert not files.target.exists()
    if number == signal.SIGINT:
        assert status == 130 and "--resume" in said and "Traceback" not in said
    before = files.partial.read_bytes()
    files.partial.write_bytes(before + b'{"id": "half a li')
    assert run(monkeypatch, files, "--url", server.url) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(monkeypatch, files, "--url", server.url, "--resume") == 0
    assert files.target.read_bytes().startswith(before)
    assert [answer["custom_id"] for answer in files.read()] == [str(each) for each in range(100)]
    assert not files.partial.exists()


def test_a_run_that_is_complete_has_nothing_to_resume(monkeypatch, capsys, files, server):
    files.write(request("a"))
    assert run(monkeypatch, files, "--url", server.url, "--resume") == 0
    before = files.target.read_bytes()
    assert run(monkeypatch, files, "--url", "http://127.0.0.1:9", "--resume") == 0
    assert "nothing to resume" in capsys.readouterr().err
    assert files.target.read_bytes() == before


def test_another_input_cannot_be_resumed(monkeypatch, capsys, files, server):
    files.write(request("a"), request("b"))
    files.partial.write_text('{"custom_id": "z"}\n')
    assert run(monkeypatch, files, "--url", server.url, "--resume") == 2
    assert "does not belong to this input" in capsys.readouterr().err
    assert files.partial.exists() and not files.target.exists()


def test_a_server_that_is_not_there_is_told_at_once(monkeypatch, capsys, files, server):
    monkeypatch.setattr("headrace.cli.batch.asking.FIRST_DELAY_SECONDS", 1_000.0)
    files.write(request("a"))
    assert run(monkeypatch, files, "--url", "http://127.0.0.1:9") == 1
    said = capsys.readouterr().err
    assert "There is no answer from http://127.0.0.1:9" in said and "Stopped" not in said
    assert not files.target.exists() and not files.partial.exists()
    assert run(monkeypatch, files, "--url", server.url) == 0


def test_a_server_that_goes_away_is_tried_again_and_then_ends_the_run(monkeypatch, capsys, files):
    monkeypatch.setattr("headrace.cli.batch.asking.FIRST_DELAY_SECONDS", 0.001)
    files.write(request("a"), request("b"))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            listener.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert run(monkeypatch, files, "--url", url, "--max-concurrency", "1") == 1
    said = capsys.readouterr().err
    assert said.count("The server does not answer") == 1 and "The server is gone" in said and "--resume" in said
    assert [answer["custom_id"] for answer in files.read(files.partial)] == ["a"]
    assert not files.target.exists()


def test_a_batch_without_requests_is_refused(monkeypatch, capsys, files):
    files.source.write_bytes(b"\n\n")
    assert run(monkeypatch, files, "--url", "http://127.0.0.1:9") == 2
    assert f"There are no requests in {files.source}" in capsys.readouterr().err
    assert not files.partial.exists()


def test_where_the_answers_are_is_told_and_that_a_file_is_replaced(monkeypatch, capsys, files, server):
    files.write(request("a"))
    assert run(monkeypatch, files, "--url", server.url) == 0
    said = capsys.readouterr().err
    assert f"the answers are in {files.partial}" in said and "replaced" not in said
    assert run(monkeypatch, files, "--url", server.url) == 0
    assert f"The {files.target} that is there is replaced" in capsys.readouterr().err


def test_failures_are_told_by_status_and_the_rest_counted():
    failures = Counter({"404: none": 2} | {f"400: Line {number} is wrong": 1 for number in range(7)})
    failures["400: often"] = 9
    assert failure_lines(failures, Path("out")) == [
        "9 x 400: often",
        "1 x 400: Line 0 is wrong",
        "1 x 400: Line 1 is wrong",
        "and 5 more with status 400, see out",
        "2 x 404: none",
    ]


def test_a_key_that_is_refused_ends_the_run_with_what_to_do(monkeypatch, capsys, files, start_server):
    server = start_server(say=SAID, options={"api_key": ("right",)})
    files.write(*(request(str(number)) for number in range(5)))
    assert run(monkeypatch, files, "--url", server.url, "--api-key", "wrong") == 2
    assert "refuses the key" in capsys.readouterr().err
    assert not files.target.exists() and not files.partial.exists()
    monkeypatch.setenv("HEADRACE_API_KEY", "right")
    assert run(monkeypatch, files, "--url", server.url, "--resume") == 0
    assert len(files.read()) == 5


def test_a_request_that_kills_the_engine_does_not_take_the_others_with_it(monkeypatch, files, start_server):
    """Each engine dies at its 60th step, which only the long request reaches."""
    monkeypatch.setattr("headrace.cli.batch.asking.READY_POLL_SECONDS", 0.05)
    server = start_server(echo_prompt=True, die_after_steps=60, max_model_len=1_000)
    files.write(
        *(request(str(number), prompt="x" * (200 if number == 2 else 3), max_tokens=100) for number in range(5))
    )
    assert run(monkeypatch, files, "--url", server.url) == 0
    assert [answer["response"]["status_code"] for answer in files.read()] == [200, 200, 503, 200, 200]


def test_a_request_that_takes_too_long_gets_an_error_and_stops_no_other(monkeypatch, capsys, files, start_server):
    server = start_server(say="on and on " * 500, step_seconds=0.01, max_model_len=10_000)
    lengths = {"first": 1, "endless": 5_000, "last": 1}
    files.write(*(request(name, max_tokens=length) for name, length in lengths.items()))
    assert run(monkeypatch, files, "--url", server.url, "--max-concurrency", "2", "--request-timeout", "2") == 0
    first, endless, last = files.read()
    assert [each["response"]["status_code"] for each in (first, endless, last)] == [200, 408, 200]
    assert endless["custom_id"] == "endless" and endless["error"]["code"] == "request_timeout"
    assert "no whole answer within 2 s" in endless["error"]["message"]
    assert "--request-timeout" in endless["response"]["body"]["error"]["message"]
    assert "2 answered, 1 failed" in capsys.readouterr().err
    server.wait_until(lambda: server.num_running == 0)


class Frail:
    """A client of a server that "poison" kills, with all that is open then: those get a 503."""

    def __init__(self):
        self.open = []
        self.poisoned = 0

    async def request(self, method, path, body):
        if path == "/ready":
            return Answer(200, {}, b"{}")
        mine = asyncio.get_running_loop().create_future()
        self.open.append(mine)
        if body == b"poison":
            await asyncio.sleep(0.01)
            self.poisoned += 1
            for each in self.open:
                each.done() or each.set_result(503)
        else:
            asyncio.get_running_loop().call_later(0.05, lambda: mine.done() or mine.set_result(200))
        status = await mine
        self.open.remove(mine)
        return Answer(status, {}, b"{}")


async def test_what_was_open_beside_a_poisonous_request_is_sent_again_without_it():
    client = Frail()
    asker = Asker(client, print)
    bodies = [b"good", b"good", b"poison", b"good"]
    answers = await asyncio.gather(*(asker.ask(BatchRequest("x", COMPLETIONS, body)) for body in bodies))
    assert [answer.status for answer in answers] == [200, 200, 503, 200]
    assert client.poisoned == SENDINGS


def test_a_server_that_is_full_is_asked_again(monkeypatch, files):
    busy = b"HTTP/1.1 429 Too Many\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{}"
    answers = [busy, busy, b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\n"id": "x"}']
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                for answer in answers:
                    connection.recv(65_536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        files.write(request("a"))
        assert run(monkeypatch, files, "--url", f"http://127.0.0.1:{listener.getsockname()[1]}") == 0
    [answer] = files.read()
    assert answer["response"] == {"status_code": 200, "request_id": "x", "body": {"id": "x"}}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/in.jsonl", "not a file here"),
        ("s3://bucket/in.jsonl", "not a file here"),
        ("/no/such/file", "cannot be read"),
        ("/", "cannot be read"),
    ],
)
def test_inputs_that_are_no_files_here_are_refused(monkeypatch, capsys, tmp_path, source, message):
    monkeypatch.setattr(sys, "argv", ["headrace", "run-batch", source, str(tmp_path / "out")])
    assert main() == 2
    assert message in capsys.readouterr().err


def test_packed_inputs_are_refused_by_name(monkeypatch, capsys, files):
    files.source.write_bytes(gzip.compress(b"{}"))
    assert run(monkeypatch, files) == 2
    assert "packed with gzip" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "INPUT is missing"),
        (["in"], "OUTPUT is missing"),
        (["in", "out", "-i", "in2"], "INPUT is given twice"),
        (["in", "in"], "Input and output are both"),
        (["in", "no/such/out"], "cannot be written"),
        (["in", "out", "--url", "http://h", "--model", "m"], "--model and --url"),
        (["in", "out", "--url", "http://h", "--dtype", "auto"], "--dtype and --url"),
        (["in", "out", "--max-concurrency", "0"], "--max-concurrency is 0"),
        (["in", "out", "--request-timeout", "-1"], "--request-timeout is -1"),
    ],
)
def test_wrong_command_lines(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("{}\n")
    monkeypatch.setattr(sys, "argv", ["headrace", "run-batch", *arguments])
    assert main() == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_two_runs_do_not_write_one_output(tmp_path):
    first = OutputFile(tmp_path / "out", resume=False)
    with pytest.raises(HeadraceError, match="another run"):
        OutputFile(tmp_path / "out", resume=True)
    first.close()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_what_was_written_stays(monkeypatch, capsys, files, server):
    files.write(*(request(str(number), max_tokens=20) for number in range(50)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        assert run(monkeypatch, files, "--url", server.url) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert "cannot be written" in said and "--resume" in said
    assert run(monkeypatch, files, "--url", server.url, "--resume") == 0
    assert [answer["custom_id"] for answer in files.read()] == [str(number) for number in range(50)]


def test_an_answer_waits_for_earlier_ones(tmp_path):
    output = OutputFile(tmp_path / "out", resume=False)
    answers = OrderedAnswers(output)
    places = [answers.take_place() for _ in range(3)]
    answers.fill(places[1], b"1\n")
    answers.fill(places[2], b"2\n")
    assert (answers.held_bytes, output.partial.read_bytes()) == (4, b"")
    answers.fill(places[0], b"0\n")
    assert (answers.held_bytes, output.partial.read_bytes()) == (0, b"0\n1\n2\n")
    output.finish()
    assert (tmp_path / "out").read_bytes() == b"0\n1\n2\n"


def test_a_body_goes_to_the_server_as_it_is():
    body = '{"temperature": 1e400, "seed": 12345678901234567890, "seed": 2}'
    found = LineParser().parse(1, f'{{"custom_id": "a", "url": "{CHAT}", "body": {body}}}'.encode())
    assert not isinstance(found, BadLine)
    assert found.body == body.encode()


def test_a_server_of_ones_own_answers_and_leaves_nothing_behind(monkeypatch, files, model_text, server, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    script = Script(token_ids=model_text.tokenizer.encode(SAID), vocab_size=model_text.tokenizer.vocab_size)

    def own(config, names):
        return LocalServer(config, names, FakeEngineProcess(script, model_text))

    monkeypatch.setattr("headrace.cli.batch.local_server.LocalServer", own)
    files.write(request("a", max_tokens=50, model="the model"), chat_request("b", max_tokens=50))
    assert run(monkeypatch, files) == 0
    mine = [answer["response"]["body"] for answer in files.read()]
    files.target.unlink()
    files.write(request("a", max_tokens=50), chat_request("b", max_tokens=50))
    assert run(monkeypatch, files, "--url", server.url) == 0
    theirs = [answer["response"]["body"] for answer in files.read()]
    assert [body["choices"] for body in mine] == [body["choices"] for body in theirs]
    assert mine[0]["model"] == "the model"
    assert not list((tmp_path / "tmp").iterdir())


def test_a_server_of_ones_own_that_cannot_start_says_why(tmp_path):
    config = EngineConfig(model=str(tmp_path / "nothing"))
    with pytest.raises(HeadraceError, match="nothing"), LocalServer(config, ("m",)):
        pass
