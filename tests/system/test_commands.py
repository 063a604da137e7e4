"""The other commands as their users run them: processes of their own, the embedded model, a terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest
from headrace_server import wait_until

SECONDS = 120
HEADRACE = (sys.executable, "-m", "headrace")


def line(custom_id: str, url: str, **body: object) -> str:
    fields = {"temperature": 0, "max_tokens": 30, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": fields}) + "\n"


@pytest.fixture
def requests(tmp_path):
    """A batch file, and what it asks."""
    path = tmp_path / "requests.jsonl"
    chats = [
        line(f"chat {number}", "/v1/chat/completions", messages=[{"role": "user", "content": f"Count to {number}."}])
        for number in range(2, 6)
    ]
    texts = [line(f"text {number}", "/v1/completions", prompt="Once upon " * number, seed=number) for number in (1, 9)]
    path.write_text("".join([*chats, *texts, line("wrong", "/v1/completions", prompt="x", top_p=5)]))
    return path


def answers(path):
    return [json.loads(each) for each in path.read_text().splitlines()]


def test_a_batch_is_answered_here_as_over_http(server, requests, tmp_path):
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    command = [*HEADRACE, "run-batch"]
    subprocess.run([*command, requests, here], check=True, timeout=SECONDS)
    subprocess.run([*command, "-i", requests, "-o", there, "--url", server.url], check=True, timeout=SECONDS)
    for mine, theirs in zip(answers(here), answers(there), strict=True):
        assert mine["custom_id"] == theirs["custom_id"]
        assert mine["response"]["status_code"] == theirs["response"]["status_code"]
        for part in ("choices", "error"):
            assert mine["response"]["body"].get(part) == theirs["response"]["body"].get(part)
    assert [each["response"]["status_code"] for each in answers(here)] == [200] * 6 + [400]


def test_a_batch_that_is_killed_leaves_no_engine_and_is_resumed(requests, tmp_path):
    source, target = tmp_path / "many.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(line(str(number), "/v1/completions", prompt="Hi") for number in range(40)))
    partial = tmp_path / "out.jsonl.partial"
    command = [*HEADRACE, "run-batch", source, target, "--max-concurrency", "2"]
    process = subprocess.Popen(command)
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
    engines = psutil.Process(process.pid).children()
    process.kill()
    process.wait(SECONDS)
    wait_until(lambda: not any(engine.is_running() and engine.status() != "zombie" for engine in engines))
    assert len(engines) == 1 and not target.exists()
    subprocess.run([*command, "--resume"], check=True, timeout=SECONDS)
    assert [each["custom_id"] for each in answers(target)] == [str(number) for number in range(40)]


def test_a_server_is_measured(server, tmp_path):
    path = tmp_path / "report.json"
    flags = ["--num-prompts", "10", "--request-rate", "10", "--random-input-len", "20", "--random-output-len", "8"]
    command = [*HEADRACE, "bench", "serve", "--base-url", server.url, *flags, "--ignore-eos", "--json", path]
    shown = subprocess.run(command, check=True, timeout=SECONDS, capture_output=True, text=True).stdout
    report = json.loads(path.read_text())
    assert (report["completed"], report["total_output_tokens"]) == (10, 80)
    assert 190 <= report["total_input_tokens"] <= 220
    assert 0 < report["p50_ttft_ms"] < report["p99_e2el_ms"] and "Time to first token" in shown


def test_an_interrupted_measurement_reports_what_it_has(server, tmp_path):
    path = tmp_path / "report.json"
    flags = ["--num-prompts", "10000", "--request-rate", "5", "--random-input-len", "5", "--random-output-len", "2"]
    command = [*HEADRACE, "bench", "serve", "--base-url", server.url, *flags, "--json", path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    before = server.get("/metrics").text
    wait_until(lambda: finished(server.get("/metrics").text) > finished(before) + 3)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    report = json.loads(path.read_text())
    assert report["interrupted"] and report["completed"] > 0 and "Interrupted" in shown


def finished(metrics: str) -> float:
    """How many requests the server has answered."""
    lines = [line for line in metrics.splitlines() if line.startswith("vllm:request_success_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *command: str) -> None:
        child, self._end = pty.fork()
        if child == 0:
            os.execvp(command[0], command)
        self.process = psutil.Process(child)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + SECONDS
        while self.shown.count(text) < times:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._end], [], [], 0.1)[0]:
                self.shown += os.read(self._end, 65_536).decode(errors="replace")


@pytest.mark.parametrize("where", ["here", "there"])
def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(server, where):
    terminal = Terminal(*HEADRACE, "chat", *(["--url", server.url] if where == "there" else []))
    terminal.wait_for("> ")
    terminal.type("Count from 1 to 1000, slowly, one number a line.\n")
    terminal.wait_for("\n", 4)
    time.sleep(0.3)  # until it is in the middle of its answer
    terminal.type("\x03")
    terminal.wait_for("(stopped)")
    terminal.type("/help\n")
    terminal.wait_for("/reset")
    terminal.type("/exit\n")
    assert terminal.process.wait(SECONDS) == 0
