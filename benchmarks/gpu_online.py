"""A served model under load, rate by rate: `python benchmarks/gpu_online.py --out DIR [--peer-path DIR]`.

Starts `headrace serve` on a made-up Qwen3-0.6B, drives it with `headrace bench serve` (Poisson arrivals, lengths as in
chats), and prints a table; then the same with vLLM's server, if it is asked for. `DIR` gets a file of JSON lines for
each server, one a rate, which `plot_online.py` draws.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu import own_path
from gpu_models import MODELS, TINY, make_folder

RATES = (1.0, 8.0, 24.0, 48.0, 72.0, 96.0, 128.0)
_NAME = "m"
_GRACE_SECONDS = 20.0
_POLL_SECONDS = 0.2
_BUSY_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Server:
    """A server's name in the table, its command without model and port, and its PYTHONPATH."""

    label: str
    command: Sequence[str]
    path: str


def main() -> None:
    """One server after another."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as parent:
        folder = make_folder(TINY if arguments.tiny else MODELS[0], Path(parent))
        for server in servers(arguments):
            print(f"\n{server.label}", flush=True)
            measured = measure(server, folder, arguments)
            lines = "".join(json.dumps(row) + "\n" for row in measured)
            (arguments.out / f"online_{server.label.lower()}.jsonl").write_text(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a directory for the results")
    parser.add_argument("--rates", type=_rates, default=RATES, help="requests a second, separated by commas")
    parser.add_argument("--seconds", type=float, default=15, help="how long requests arrive, for each rate")
    parser.add_argument("--flags", default="", help="more flags for `headrace serve`")
    parser.add_argument("--ready-seconds", type=float, default=200, help="the most that a server takes to start")
    parser.add_argument("--peer-python", help="an interpreter that has vLLM")
    parser.add_argument("--peer-path", help="a directory for PYTHONPATH that has vLLM")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, to see that this program works")
    return parser.parse_args()


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def servers(arguments: argparse.Namespace) -> list[Server]:
    """Ours, and vLLM's if it was asked for."""
    ours = [sys.executable, "-m", "headrace", "serve", *arguments.flags.split()]
    found = [Server("headrace", ours, own_path())]
    if arguments.peer_python or arguments.peer_path:
        theirs = [arguments.peer_python or sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
        found.append(Server("vLLM", theirs, arguments.peer_path or ""))
    return found


def measure(server: Server, folder: Path, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each rate, printed as it comes; what a rate leaves behind has ended before the next."""
    rows = []
    with running(server, folder, arguments.ready_seconds) as url:
        print(header(), flush=True)
        for rate in arguments.rates:
            rows.append(row(rate, load(url, rate, max(1, math.ceil(rate * arguments.seconds)))))
            print(line(rows[-1]), flush=True)
    return rows


@contextlib.contextmanager
def running(server: Server, folder: Path, ready_seconds: float) -> Iterator[str]:
    """The server's URL once it answers; it and its processes are gone afterwards."""
    port = _free_port()
    flags = ["--load-format", "dummy", "--served-model-name", _NAME, "--max-model-len", "4096", "--port", str(port)]
    command, environment = [*server.command, str(folder), *flags], {**os.environ, "PYTHONPATH": server.path}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, process_group=0)
        try:
            started = time.perf_counter()
            _wait_ready(process, f"http://127.0.0.1:{port}/v1/models", started + ready_seconds)
            print(f"ready after {time.perf_counter() - started:.1f} s", flush=True)
            yield f"http://127.0.0.1:{port}"
        except SystemExit:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            _end(process)


def load(url: str, rate: float, count: int) -> Mapping[str, object]:
    """What `headrace bench serve` reports of `count` requests at `rate` a second."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "headrace", "bench", "serve", "--base-url", url, "--model", _NAME]
        command += ["--dataset-name", "sharegpt", "--request-rate", f"{rate:g}", "--num-prompts", str(count)]
        command += ["--temperature", "0.6", "--ignore-eos", "--seed", str(round(rate)), "--disable-tqdm"]
        environment = {**os.environ, "PYTHONPATH": own_path()}
        command += ["--json", str(report)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"the load generator failed: {done.stderr[-2000:]}{done.stdout[-2000:]}")
        measured: Mapping[str, object] = json.loads(report.read_text())
    return measured


def row(rate: float, report: Mapping[str, object]) -> dict[str, object]:
    """A rate's figures, in the form that is drawn: times in milliseconds by percentile."""
    times = {
        f"{metric}_ms": {f"p{percent}": report.get(f"p{percent}_{metric}_ms") for percent in (50, 90, 99)}
        for metric in ("ttft", "itl", "tpot")
    }
    counts = {name: report[name] for name in ("completed", "rejected", "failed", "client_cpu_share")}
    return {"rate": rate, "out_tok_s": report["output_throughput"], **times, **counts}


def header() -> str:
    """The head of a server's table."""
    names = ("req/s", "output tok/s", "TTFT p50 / p99, ms", "ITL p50 / p99, ms", "completed", "429", "failed")
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|"


def line(figures: Mapping[str, object]) -> str:
    """A rate's line of the table; an exclamation mark says that the load generator may have been the slower one."""
    busy = " !" if float(str(figures["client_cpu_share"])) > _BUSY_SHARE else ""
    cells = [f"{figures['rate']:g}{busy}", f"{figures['out_tok_s']:,.0f}"]
    cells += [_pair(figures["ttft_ms"]), _pair(figures["itl_ms"])]
    cells += [str(figures[name]) for name in ("completed", "rejected", "failed")]
    return f"| {' | '.join(cells)} |"


def _pair(times: object) -> str:
    assert isinstance(times, dict)
    return " / ".join("-" if times[name] is None else f"{times[name]:.1f}" for name in ("p50", "p99"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_ready(process: "subprocess.Popen[bytes]", url: str, deadline: float) -> None:
    while process.poll() is None and time.perf_counter() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(_POLL_SECONDS)
    sys.exit(f"the server did not start: {' '.join(map(str, process.args))}")  # type: ignore[arg-type]


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    main()
