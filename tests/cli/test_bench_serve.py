"""`headrace bench serve`: the load that is planned, what a stream's times are, and runs against a real server."""

import asyncio
import json
import math
import random
import ssl
import statistics
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from headrace.cli import main
from headrace.cli.bench.arrivals import arrival_seconds
from headrace.cli.bench.prompts import RandomLengths, random_prompts, sharegpt_like_prompts, sharegpt_prompts
from headrace.cli.bench.server_load import Load, LoadGenerator, LoadRequest, RequestRecord
from headrace.cli.bench.server_report import ServerRun, is_good
from headrace.cli.bench.stream import TimedStream
from headrace.cli.client.http import Answer
from headrace.core.errors import HeadraceError


def bench(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["headrace", "bench", "serve", "--disable-tqdm", *arguments])
    return main()


def report(tmp_path):
    return json.loads((tmp_path / "report.json").read_text())


def test_a_run_counts_what_the_server_made(monkeypatch, capsys, tmp_path, server):
    arguments = ["--base-url", f"{server.url}/v1", "--num-prompts", "12", "--random-input-len", "5"]
    arguments += ["--random-output-len", "6", "--ignore-eos", "--json", str(tmp_path / "report.json")]
    assert bench(monkeypatch, *arguments) == 0
    figures = report(tmp_path)
    assert (figures["completed"], figures["failed"], figures["rejected"], figures["errors"]) == (12, 0, 0, {})
    assert figures["total_output_tokens"] == 12 * 6
    assert figures["total_input_tokens"] > 12 * 5  # the server's own count: its tokenizer makes tokens of bytes
    assert figures["model_id"] == "fake-model"
    assert figures["request_throughput"] == pytest.approx(12 / figures["duration"])
    assert 0 < figures["p50_ttft_ms"] <= figures["p99_ttft_ms"] <= figures["p99_e2el_ms"]
    assert figures["request_rate"] == "inf"
    assert "End to end" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ["--endpoint", "/v1/chat/completions", "--max-concurrency", "2"],
        ["--backend", "openai-chat", "--request-rate", "200"],
        ["--backend", "vllm", "--dataset-name", "sharegpt", "--extra-body", '{"max_tokens": 2, "top_p": 0.5}'],
    ],
)
def test_every_way_to_ask(monkeypatch, tmp_path, start_server, flags):
    server = start_server(say="abc", max_model_len=20_000)
    path = tmp_path / "report.json"
    flags += ["--random-input-len", "3", "--num-prompts", "5", "--save-result", "--result-dir", str(tmp_path)]
    assert bench(monkeypatch, "--base-url", server.url, "--result-filename", path.name, *flags) == 0
    assert report(tmp_path)["completed"] == 5


def test_promises_are_counted(monkeypatch, tmp_path, server):
    arguments = ["--base-url", server.url, "--num-prompts", "4", "--random-input-len", "3"]
    arguments += ["--goodput", "ttft:60000", "e2el:60000", "--percentile-metrics", "ttft", "--metric-percentiles", "75"]
    assert bench(monkeypatch, *arguments, "--json", str(tmp_path / "report.json")) == 0
    figures = report(tmp_path)
    assert figures["request_goodput"] == figures["request_throughput"]
    assert "p75_ttft_ms" in figures and "p99_ttft_ms" not in figures and "mean_itl_ms" not in figures


@pytest.mark.parametrize(("key", "status"), [("right", 0), ("wrong", 2)])
def test_a_key_is_sent(monkeypatch, start_server, key, status):
    server = start_server(say="abc", options={"api_key": ("right",)})
    arguments = ["--base-url", server.url, "--model", "fake-model", "--num-prompts", "2", "--random-input-len", "3"]
    assert bench(monkeypatch, *arguments, "--api-key", key) == status


class Patient:
    """A client whose answers all wait for the same moment."""

    def __init__(self, moment):
        self.moment = moment
        self.sent = 0

    async def request(self, method, path, body, on_piece):
        self.sent += 1
        if self.sent == 20:
            self.moment.set()
        await self.moment.wait()
        on_piece(event(text="a") + b"data: [DONE]\n\n")
        return Answer(200, {}, b"")


async def test_arrivals_do_not_wait_for_answers():
    """Nothing is answered before all twenty are sent: a closed loop would wait for ever."""
    requests = [LoadRequest(b"{}", number * 0.002, 1) for number in range(20)]
    generator = LoadGenerator(Patient(asyncio.Event()), Load("/", requests, None, closed_loop=False))
    await asyncio.wait_for(generator.run(), 30)
    due = sorted(record.due for record in generator.records)
    assert [each - due[0] for each in due] == pytest.approx([request.due_seconds for request in requests])
    assert all(record.ok and record.delay >= 0 for record in generator.records)


async def test_a_closed_loop_has_so_many_open_and_no_more():
    class Counting(Patient):
        open = most = 0

        async def request(self, *arguments):
            self.open += 1
            self.most = max(self.most, self.open)
            await asyncio.sleep(0.001)
            self.moment.set()
            answer = await super().request(*arguments)
            self.open -= 1
            return answer

    client = Counting(asyncio.Event())
    generator = LoadGenerator(client, Load("/", [LoadRequest(b"{}", 0.0, 1)] * 30, 4, closed_loop=True))
    await asyncio.wait_for(generator.run(), 30)
    assert client.most == 4 and len(generator.records) == 30
    assert all(record.delay == 0 for record in generator.records)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "nobody"], "status 404"),
        (["--random-input-len", "900"], "context"),
        (["--endpoint", "/v1/nothing"], "status 404"),
        (["--goodput", "itl:5"], "Bounds are of ttft"),
        (["--goodput", "ttft:fast"], "Bounds are of ttft"),
        (["--percentile-metrics", "ttft,speed"], "--percentile-metrics is 'speed'"),
        (["--metric-percentiles", "50,101"], "--metric-percentiles is '50,101'"),
        (["--request-rate", "0"], "--request-rate is 0"),
        (["--request-rate", "nan"], "--request-rate is nan"),
        (["--burstiness", "-1"], "--burstiness is -1"),
        (["--random-range-ratio", "1"], "--random-range-ratio is 1"),
        (["--num-prompts", "0"], "--num-prompts is 0"),
        (["--request-timeout", "inf"], "--request-timeout is inf"),
        (["--extra-body", "[]"], "--extra-body is '[]'"),
        (["--dataset-path", "x.json"], "--dataset-name sharegpt"),
        (["--dataset-name", "sharegpt", "--dataset-path", "/no/x.json"], "/no/x.json cannot be read"),
        (["--json", "/no/such/directory/x.json"], "cannot be written"),
        (["--base-url", "nonsense"], "not a server's address"),
    ],
)
def test_what_cannot_be_measured_is_told(monkeypatch, capsys, server, flags, message):
    assert bench(monkeypatch, "--base-url", server.url, *flags) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_no_server_is_told_with_how_to_start_one(monkeypatch, capsys):
    assert bench(monkeypatch, "--base-url", "http://127.0.0.1:9", "--model", "m") == 1
    assert "headrace serve" in capsys.readouterr().err


class Moody(BaseHTTPRequestHandler):
    """Answers the first request, then each in its own way."""

    ways = ("ok", "ok", "429", "500", "cut", "broken", "slow", "error")
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            way = self.ways[min(self.server.asked, len(self.ways) - 1)]
            self.server.asked += 1
        if way in ("429", "500"):
            self.send_response(int(way))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"no")
            return
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        text = b'data: {"choices": [{"text": "a", "finish_reason": null}], "usage": null}\n\n'
        ends = {
            "ok": b"data: [DONE]\n\n",
            "cut": b"",
            "broken": b"data: 5\n\n",
            "error": b'data: {"error": {"a": 1}}\n\n',
        }
        if way == "slow":
            self.server.over.wait(60)
        self.wfile.write(text + text + ends.get(way, b""))
        self.close_connection = True

    def log_message(self, *_):
        pass


def test_what_fails_is_counted_by_its_status(monkeypatch, capsys, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Moody) as server:
        server.asked, server.lock, server.over = 0, threading.Lock(), threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        arguments = ["--base-url", url, "--model", "m", "--num-prompts", "7", "--json", str(tmp_path / "report.json")]
        assert bench(monkeypatch, *arguments, "--request-timeout", "2") == 0
        server.over.set()
        server.shutdown()
    figures = report(tmp_path)
    assert (figures["completed"], figures["rejected"], figures["failed"]) == (1, 1, 5)
    assert figures["errors"] == {"500": 1, "cut": 1, "broken": 2, "timeout": 1}
    assert figures["total_output_tokens"] == 2  # without a usage, each event with text is a token
    assert "errors:" in capsys.readouterr().out


def test_arrivals_are_poisson_and_can_be_more_even_or_in_bursts():
    def gaps(burstiness):
        times = arrival_seconds(random.Random(0), 20_000, 50.0, burstiness)
        assert times == sorted(times)
        return [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]

    for burstiness in (0.25, 1.0, 16.0):
        found = gaps(burstiness)
        assert statistics.fmean(found) == pytest.approx(1 / 50, rel=0.05)
        assert statistics.pstdev(found) / statistics.fmean(found) == pytest.approx(burstiness**-0.5, rel=0.05)
    assert arrival_seconds(random.Random(0), 3, math.inf, 1.0) == [0.0, 0.0, 0.0]
    assert arrival_seconds(random.Random(7), 9, 5.0, 1.0) == arrival_seconds(random.Random(7), 9, 5.0, 1.0)


def test_random_prompts_have_the_lengths_asked_for():
    prompts = random_prompts(random.Random(0), RandomLengths(100, 20, range_ratio=0.5, prefix_len=10), 500)
    assert all(len(prompt.text.split()) == prompt.prompt_tokens for prompt in prompts)
    assert {min(p.prompt_tokens for p in prompts) >= 60, max(p.prompt_tokens for p in prompts) <= 160} == {True}
    assert all(10 <= prompt.output_tokens <= 30 for prompt in prompts)
    assert len({tuple(prompt.text.split()[:10]) for prompt in prompts}) == 1
    assert len({prompt.text for prompt in prompts}) == 500


def test_sharegpt_like_lengths_have_the_means_of_sharegpt():
    prompts = sharegpt_like_prompts(random.Random(0), 20_000)
    assert statistics.fmean(prompt.prompt_tokens for prompt in prompts) == pytest.approx(215, rel=0.03)
    assert statistics.fmean(prompt.output_tokens for prompt in prompts) == pytest.approx(198, rel=0.03)
    assert max(prompt.prompt_tokens + prompt.output_tokens for prompt in prompts) <= 2_048


def test_words_are_tokens_of_the_embedded_model(smollm2_gguf):
    from headrace.text.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(smollm2_gguf)
    for prompt in random_prompts(random.Random(0), RandomLengths(200, 1), 5):
        assert abs(len(tokenizer.encode(prompt.text, add_special_tokens=False)) - 200) <= 2


def test_a_sharegpt_file(tmp_path):
    def conversation(*texts):
        return {"conversations": [{"from": "human", "value": text} for text in texts]}

    path = tmp_path / "chats.json"
    path.write_text(json.dumps([conversation("q" * 40, "a" * 80), conversation("alone"), conversation("hi", "a" * 80)]))
    prompts = sharegpt_prompts(random.Random(0), path, 3, None)
    assert [(prompt.text, prompt.prompt_tokens, prompt.output_tokens) for prompt in prompts] == [("q" * 40, 10, 20)] * 3
    assert sharegpt_prompts(random.Random(0), path, 1, 7)[0].output_tokens == 7
    for content in ("{}", "[1]", "[]", "no"):
        path.write_text(content)
        with pytest.raises(HeadraceError, match="--dataset-path"):
            sharegpt_prompts(random.Random(0), path, 1, None)


def event(**choice) -> bytes:
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def test_the_times_of_a_stream():
    times = iter([1.0, 2.0, 2.5, 2.5, 4.0, 5.0])
    stream = TimedStream(lambda: next(times))
    stream.feed(event(delta={"role": "assistant", "content": ""}))  # is no text
    stream.feed(event(delta={"content": "a"}))
    stream.feed(event(delta={"reasoning": "b"})[:9])
    stream.feed(event(delta={"reasoning": "b"})[9:] + event(text="c"))
    stream.feed(event(delta={}, finish_reason="stop").replace(b"\n", b"\r\n"))
    stream.feed(b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}}\n\ndata: [DONE]\n\n')
    assert (stream.first, stream.last, stream.gaps) == (2.0, 2.5, [0.5, 0.0])
    assert (stream.prompt_tokens, stream.output_tokens, stream.complete, stream.error) == (7, 4, True, None)


def test_the_clock_starts_when_a_request_was_due():
    record = RequestRecord(due=1.0, sent=3.0, first=3.5, last=5.5, ended=6.0, output_tokens=5)
    assert (record.ttft, record.e2el, record.tpot, record.delay) == (2.5, 5.0, 0.5, 2.0)
    run = ServerRun("m", [record], seconds=5.0, client_cpu_seconds=0.1)
    assert run.late
    from_sending = {each.metric: list(each.values) for each in run.late_distributions()}
    assert from_sending == {"send_delay": [2_000], "ttft_from_sending": [500], "e2el_from_sending": [3_000]}
    assert is_good(record, {"ttft": 2_500, "tpot": 500}) and not is_good(record, {"ttft": 2_499})


def test_https(monkeypatch, capsys, start_server):
    certificate = Path(__file__).parents[1] / "server" / "localhost.pem"
    server = start_server(say="abc", wait=False, options={"ssl_certfile": str(certificate)})
    url = server.url.replace("http://127.0.0.1", "https://localhost")
    context = ssl.create_default_context(cafile=certificate)
    server.wait_until(lambda: httpx.get(f"{url}/ready", verify=context).status_code == 200)
    arguments = ["--base-url", url, "--model", "fake-model", "--num-prompts", "3", "--random-input-len", "3"]
    assert bench(monkeypatch, *arguments) == 1
    assert "SSL_CERT_FILE" in capsys.readouterr().err
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert bench(monkeypatch, *arguments) == 0
