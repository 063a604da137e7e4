"""The engine on a GPU beside vLLM and the floors: `python benchmarks/gpu.py [--peer-python PY] [--peer-path DIR]`.

Every engine and model is a process of its own, one after another on the same card, with made-up weights of the true
shapes. The floor is what the card, as a copy and a matrix product show in the same run, needs at least in bf16.
vLLM runs if `--peer-python` names an interpreter that has it, or `--peer-path` a directory for PYTHONPATH.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gpu_floors import Ceilings, Floors, floors_of
from gpu_models import MODELS, TINY, config_of, make_folder
from gpu_workloads import FULL, Sizes, nano_lengths, rows
from gpu_workloads import TINY as TINY_SIZES

ROWS_OF_LARGE = ("first token", "batch 1", "batch 8", "batch 32", "batch 128", "nano-vllm")
_THIS = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine, how it is started, and what it is called in the table."""

    label: str
    module: str
    python: str
    path: str
    options: Mapping[str, object] = field(default_factory=dict)


def main() -> None:
    """Measure everything that was asked for; a table after each model, the JSON at the end."""
    arguments = _arguments()
    models = [TINY] if arguments.tiny else arguments.models.split(",")
    sizes = TINY_SIZES if arguments.tiny else FULL
    ceilings, card = (Ceilings(1e10, 1e11), "CPU") if arguments.tiny else measured_ceilings()
    rates = f"{ceilings.bytes_per_second / 1e12:.2f} TB/s copied, {ceilings.flops_per_second / 1e12:.0f} TFLOP/s"
    print(f"{card}: {rates}")
    found = []
    with tempfile.TemporaryDirectory() as parent:
        for model in models:
            folder, wanted = make_folder(model, Path(parent)), _wanted(arguments.rows, model, sizes)
            results = {each.label: run(each, folder, wanted, arguments) for each in contenders(arguments)}
            floors = floors_of(config_of(model), ceilings)
            least = {row: floor(floors, row, sizes) for row in wanted}
            print(f"\n{model}\n{table(wanted, least, results)}", flush=True)
            found.append({"model": model, "floors": least, "results": results})
    if arguments.json:
        report = {"card": card, "ceilings": asdict(ceilings), "models": found}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rows", default="", help="names of rows separated by commas, for example 'batch 1,prefill'")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kv-cache-dtype", default="", help="also our engine with a cache in this dtype: fp8")
    parser.add_argument("--options", type=json.loads, default={}, help="arguments of our LLM, as JSON")
    parser.add_argument("--peer-python", help="an interpreter that has vLLM")
    parser.add_argument("--peer-path", help="a directory for PYTHONPATH that has vLLM")
    parser.add_argument("--seconds", type=float, default=300, help="the most that an engine gets for a model")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, to see that this program works")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def contenders(arguments: argparse.Namespace) -> list[Contender]:
    """Ours, ours with another cache, and vLLM, as far as they were asked for."""
    found = [Contender("headrace", "headrace", sys.executable, own_path(), arguments.options)]
    if arguments.kv_cache_dtype:
        options = {**arguments.options, "kv_cache_dtype": arguments.kv_cache_dtype}
        found.append(
            Contender(f"headrace, {arguments.kv_cache_dtype} cache", "headrace", sys.executable, own_path(), options)
        )
    if arguments.peer_python or arguments.peer_path:
        python = arguments.peer_python or sys.executable
        found.append(Contender("vLLM", "vllm", python, arguments.peer_path or ""))
    return found


def own_path() -> str:
    """PYTHONPATH for our own processes: this tree's package before any other."""
    return os.pathsep.join([str(_THIS.parent / "src"), os.environ.get("PYTHONPATH", "")])


def measured_ceilings() -> tuple[Ceilings, str]:
    """The card's rates and its name, measured in a process that ends: an engine wants all of the memory."""
    command = [sys.executable, str(_THIS / "gpu_ceilings.py")]
    environment = {**os.environ, "PYTHONPATH": own_path()}
    answer = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return Ceilings(answer["bytes_per_second"], answer["flops_per_second"]), answer["card"]


def run(
    contender: Contender, folder: Path, wanted: Sequence[str], arguments: argparse.Namespace
) -> dict[str, dict[str, object]]:
    """Row -> what was measured, up to where the time ended or the engine failed; its errors go to standard error."""
    command = [contender.python, str(_THIS / "gpu_workloads.py"), contender.module, str(folder)]
    command += ["--options", json.dumps(contender.options), "--rows", ",".join(wanted)]
    command += ["--repeats", str(arguments.repeats), *(["--tiny"] if arguments.tiny else [])]
    environment = {**os.environ, "PYTHONPATH": contender.path}
    found: dict[str, dict[str, object]] = {}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        limit = threading.Timer(arguments.seconds, lambda: os.killpg(process.pid, 9))
        limit.start()
        for line in process.stdout:
            if line.startswith('{"row"'):
                measured = json.loads(line)
                found[measured.pop("row")] = measured
                print(f"{contender.label}: {line.strip()}", file=sys.stderr, flush=True)
        limit.cancel()
    return found


def floor(floors: Floors, row: str, sizes: Sizes) -> float | None:
    """The least milliseconds, or the most tokens a second, of a row; None where none is known."""
    if row.startswith("batch "):
        batch = int(row.removeprefix("batch "))
        prompt, answer = sizes.latency if batch == 1 else sizes.batched
        return floors.decode_seconds(batch, prompt + answer / 2) * 1e3
    if row == "nano-vllm":
        prompts, answers = nano_lengths(sizes)
        pairs = [(len(prompt), answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return sum(answers) / floors.generation_seconds(pairs)
    if row == "prefill":
        _, length = sizes.prefill
        return length / floors.prefill_seconds([length])
    return None


def table(
    wanted: Sequence[str], least: Mapping[str, float | None], results: Mapping[str, Mapping[str, Mapping[str, object]]]
) -> str:
    """Markdown: the floor, each engine with its share of it, and how many times as fast as the last one ours is."""
    labels = list(results)
    lines = [f"| | floor | {' | '.join(labels)} | ours to {labels[-1]}'s |", "|---" * (len(labels) + 3) + "|"]
    for row in ("start", *wanted):
        values = [_value(results[label].get(row)) for label in labels]
        cells = [_cell(value, least.get(row), rate=_is_rate(row)) for value in values]
        lines.append(f"| {_label(row)} | {_shown(least.get(row))} | {' | '.join(cells)} | {_ratio(values, row)} |")
    return "\n".join(lines)


def _wanted(asked: str, model: str, sizes: Sizes) -> list[str]:
    if asked:
        return asked.split(",")
    return [row for row in rows(sizes) if model != MODELS[1] or row in ROWS_OF_LARGE]


def _is_rate(row: str) -> bool:
    return row in ("nano-vllm", "prefill")


def _label(row: str) -> str:
    if row.startswith("batch "):
        return f"{row}, ms a decode step"
    units = {"first token": "ms", "nano-vllm": "output tokens/s", "prefill": "tokens/s", "start": "s"}
    return f"{row}, {units[row]}"


def _value(measured: Mapping[str, object] | None) -> float | None:
    return None if measured is None else float(str(measured["value"]))


def _cell(value: float | None, least: float | None, *, rate: bool) -> str:
    if value is None or not least:
        return _shown(value)
    return f"{_shown(value)} ({value / least if rate else least / value:.0%})"


def _ratio(values: Sequence[float | None], row: str) -> str:
    ours, theirs = values[0], values[-1]
    if len(values) < 2 or not ours or not theirs:
        return "-"
    return f"x {ours / theirs if _is_rate(row) else theirs / ours:.2f}"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
