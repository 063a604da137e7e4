"""What a streamed token and a small request cost the HTTP process, beside a plain FastAPI and pydantic server.

    python benchmarks/front.py [--rounds 3] [--seconds 4] [--streams 64] [--step-ms 3] [--json FILE]
        [--httptools] [--asyncio]

Both servers get the same tokens from the same fake engine (a process of its own, one step every --step-ms and a
little) and answer the same streams to the same client (another process). In every round one is measured right after
the other. A row is the median over the rounds:

    us/token      CPU of the server process, all its threads, user and system, between two moments, divided by the
                  tokens that the client received between them: its events, times the tokens of an event.
    x bare        the same as a multiple of a bare send's: what `front_bare.py`, which only sends ready bytes to as
                  many connections, took in the same round. It says how much of us/token is the kernel's.
    tokens/event  how many tokens of the first stream came in one event, which should be one: a server that falls
                  behind may join them.
    ITL p50, p99  milliseconds between two events of a stream, all streams together, seen by the client.
    stalled       p99 while prompts of 300 kB are sent one after the other, as a multiple of p99 without them.
    us/request    CPU of the server process for a whole answer of one token: HTTP, template, tokens, engine, JSON.
    us/admit      CPU from the body's bytes to the request on its way to the engine; template and tokenization apart.

Both run on what Headrace's base install has, h11 and uvloop; --httptools and --asyncio put those in their places.
"""

import argparse
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from front_parts import MODEL, load_text, said_tokens

HERE = Path(__file__).parent
SERVERS = {"Headrace": "front_headrace.py", "FastAPI + pydantic": "front_fastapi.py"}
BARE = "bare send"
STREAM = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Go on."}],
    "stream": True,
    "max_tokens": 50_000,
    "ignore_eos": True,
}
SMALL = {"model": MODEL, "messages": STREAM["messages"], "max_tokens": 1}
LONG_PROMPT_BYTES = 300_000
COLUMNS = ("us/token", "x bare", "tokens/s", "tokens/event", "ITL p50", "ITL p99", "stalled", "us/request", "us/admit")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """CPU of all its threads so far."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def post(self, connection: http.client.HTTPConnection, path: str, body: dict[str, object]) -> None:
        """One request, its answer read to the end."""
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if b'"choices"' not in answer.read():
            raise SystemExit(f"{path} was not answered")


class Reader:
    """The client process."""

    def __init__(self, server: Server, streams: int) -> None:
        command = [sys.executable, str(HERE / "front_client.py"), str(server.port), str(streams), json.dumps(STREAM)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str) -> dict[str, Any]:
        """What the client says to `word`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the client, and so its streams."""
        self._process.communicate("end\n", timeout=10)


@contextlib.contextmanager
def running(script: str, flags: list[str]) -> Iterator[Server]:
    """A server, started and ended."""
    process = subprocess.Popen([sys.executable, str(HERE / script), *flags], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Server(**json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def reading(server: Server, streams: int) -> Iterator[Reader]:
    """A client whose streams have all begun."""
    reader = Reader(server, streams)
    time.sleep(1.5)
    reader.ask("gaps")
    try:
        yield reader
    finally:
        reader.close()
        time.sleep(0.3)


def bare(server: Server, options: argparse.Namespace) -> float:
    """CPU of a bare send of an event."""
    with reading(server, options.streams) as reader:
        return cpu_an_event(server, reader, options.seconds)[0] * 1e6


def cpu_an_event(server: Server, reader: Reader, seconds: float) -> tuple[float, float]:
    """(CPU seconds of the server for an event, events a second)."""
    began, cpu, events = time.monotonic(), server.cpu_seconds(), reader.ask("count")["events"]
    time.sleep(seconds)
    cpu, events = server.cpu_seconds() - cpu, reader.ask("count")["events"] - events
    return cpu / events, events / (time.monotonic() - began)


def streaming(server: Server, options: argparse.Namespace, characters_a_token: float) -> dict[str, float]:
    """CPU a token, and the latencies with and without long prompts."""
    with reading(server, options.streams) as reader:
        cpu, events = cpu_an_event(server, reader, options.seconds)
        heard, gaps = reader.ask("said")["said"], reader.ask("gaps")
        with long_prompts(server):
            time.sleep(options.seconds)
            stalled = reader.ask("gaps")
    tokens_an_event = len("".join(heard)) / len(heard) / characters_a_token
    return {
        "us/token": cpu / tokens_an_event * 1e6,
        "tokens/s": events * tokens_an_event,
        "tokens/event": tokens_an_event,
        "ITL p50": gaps["p50"] * 1e3,
        "ITL p99": gaps["p99"] * 1e3,
        "stalled": stalled["p99"] / gaps["p99"],
    }


@contextlib.contextmanager
def long_prompts(server: Server) -> Iterator[None]:
    """Meanwhile, prompts of 300 kB come one after the other."""
    stop = threading.Event()
    text = "Water runs down the race and turns the wheel of the old mill. " * (LONG_PROMPT_BYTES // 62 + 1)
    body = {"model": MODEL, "prompt": text[:LONG_PROMPT_BYTES], "max_tokens": 1}

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        while not stop.is_set():
            server.post(connection, "/v1/completions", body)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def requests(server: Server, count: int = 300) -> dict[str, float]:
    """CPU of a whole small answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    for _ in range(20):
        server.post(connection, "/v1/chat/completions", SMALL)
    cpu = server.cpu_seconds()
    for _ in range(count):
        server.post(connection, "/v1/chat/completions", SMALL)
    return {"us/request": (server.cpu_seconds() - cpu) / count * 1e6}


def admission(script: str, flags: list[str], count: int = 500) -> dict[str, float]:
    """CPU of taking a small request in."""
    command = [sys.executable, str(HERE / script), *flags, "--admit", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"us/admit": json.loads(done.stdout.splitlines()[-1])["admit_us"]}


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The medians of each server's rounds."""
    flags = ["--step-seconds", str(options.step_ms / 1e3)]
    flags += [f"--{name}" for name in ("httptools", "asyncio") if getattr(options, name)]
    text = load_text()
    characters_a_token = len(text.tokenizer.decode(said_tokens(text, 50_000))) / 50_000
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in SERVERS}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(running(script, flags)) for name, script in SERVERS.items()}
        sender = stack.enter_context(running("front_bare.py", flags))
        for _ in range(options.rounds):
            floor = bare(sender, options)
            print(BARE, round(floor, 2), file=sys.stderr)
            for name, server in servers.items():
                row = streaming(server, options, characters_a_token)
                row["x bare"] = row["us/token"] / floor
                rounds[name].append({**row, **requests(server), **admission(SERVERS[name], flags)})
                print(name, {key: round(value, 2) for key, value in rounds[name][-1].items()}, file=sys.stderr)
    return {name: _medians(rows) for name, rows in rounds.items()}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {column: statistics.median(row[column] for row in rows) for column in COLUMNS}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--step-ms", type=float, default=3.0)
    parser.add_argument("--httptools", action="store_true", help="instead of h11, in both")
    parser.add_argument("--asyncio", action="store_true", help="its loop instead of uvloop's, in both")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options)
    parts = ("httptools" if options.httptools else "h11", "asyncio" if options.asyncio else "uvloop")
    print(f"{options.streams} streams, {' and '.join(parts)}")
    print(" " * 20 + "".join(f"{column:>14}" for column in COLUMNS))
    for name, row in rows.items():
        print(f"{name:<20}" + "".join(f"{row[column]:>14.2f}" for column in COLUMNS))
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": None}, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
