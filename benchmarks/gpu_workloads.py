"""The workloads of `benchmarks/gpu.py`, in a process that has one engine: ours, or vLLM through the same names.

`python benchmarks/gpu_workloads.py ENGINE FOLDER [--options JSON] [--rows NAME,...] [--repeats N] [--tiny]` prints a
JSON line for each measurement. It imports nothing of ours but the engine, so that vLLM's interpreter can run it.
"""

import argparse
import importlib
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MOST_WORD = 10_000
NANO_SEED = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens in and out of each workload, and how many sequences at once."""

    latency: tuple[int, int] = (128, 256)
    batched: tuple[int, int] = (512, 256)
    batches: tuple[int, ...] = (8, 32, 128, 256)
    nano: tuple[int, int, int] = (256, 100, 1024)
    prefill: tuple[int, int] = (32, 2048)
    max_model_len: int = 4096


FULL = Sizes()
TINY = Sizes((8, 16), (16, 8), (2, 4, 8, 16), (8, 6, 64), (4, 64), 256)
"""For a CPU."""


def rows(sizes: Sizes) -> list[str]:
    """The names of all measurements, in the order in which they are taken."""
    batches = [f"batch {batch}" for batch in sizes.batches]
    return ["first token", "batch 1", *batches, "nano-vllm", "prefill"]


def nano_lengths(sizes: Sizes) -> tuple[list[list[int]], list[int]]:
    """nano-vLLM's benchmark: prompts and answer lengths, drawn in its order, so that they are the same ones."""
    source, (count, low, high) = random.Random(NANO_SEED), sizes.nano
    prompts = [[source.randint(0, MOST_WORD) for _ in range(source.randint(low, high))] for _ in range(count)]
    return prompts, [source.randint(low, high) for _ in range(count)]


class Engine:
    """An engine with vLLM's Python API, its weights made up; prompts and answers are token ids."""

    def __init__(self, module: str, folder: str, options: dict[str, Any]) -> None:
        started = time.perf_counter()
        api = importlib.import_module(module)
        self._params = api.SamplingParams
        self.import_seconds = time.perf_counter() - started
        started = time.perf_counter()
        fixed = {"load_format": "dummy", "skip_tokenizer_init": True, "dtype": "bfloat16", "seed": 0}
        self._llm = api.LLM(folder, **{**fixed, **options})
        self.constructor_seconds = time.perf_counter() - started

    def seconds(self, prompts: Sequence[list[int]], answers: Sequence[int], temperature: float) -> float:
        """How long it takes to answer all at once. Raises `RuntimeError` if a token is missing."""
        params = [
            self._params(temperature=temperature, max_tokens=count, ignore_eos=True, detokenize=False)
            for count in answers
        ]
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        started = time.perf_counter()
        outputs = self._llm.generate(asked, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        made = sum(len(output.outputs[0].token_ids) for output in outputs)
        if made != sum(answers):
            raise RuntimeError(f"{made} tokens were made of {sum(answers)}")
        return seconds


class Workloads:
    """Each workload once a call, on prompts that no other call has had: a prefix cache does not help."""

    def __init__(self, engine: Engine, sizes: Sizes) -> None:
        self._engine = engine
        self._sizes = sizes
        self._source = random.Random(1)

    def measure(self, row: str) -> float:
        """The value of a row: milliseconds of a first token or of a decode step, or tokens a second."""
        if row.startswith("batch "):
            batch = int(row.removeprefix("batch "))
            return self._step_ms(batch, *(self._sizes.latency if batch == 1 else self._sizes.batched))
        special: dict[str, Callable[[], float]] = {
            "first token": self._first_token_ms, "nano-vllm": self._nano, "prefill": self._prefill,
        }  # fmt: skip
        return special[row]()

    def warm_up(self) -> None:
        """What the first requests alone would pay for."""
        for temperature in (0.6, 0.0):
            self._engine.seconds(self._prompts(4, 64), [8] * 4, temperature)

    def _prompts(self, count: int, length: int) -> list[list[int]]:
        return [[self._source.randrange(10, MOST_WORD) for _ in range(length)] for _ in range(count)]

    def _first_token_ms(self) -> float:
        return self._engine.seconds(self._prompts(1, self._sizes.latency[0]), [1], 0.0) * 1e3

    def _step_ms(self, batch: int, length: int, answer: int) -> float:
        """Of the steps after the first token, whose time is that of a run which stops there."""
        temperature = 0.0 if batch == 1 else 0.6
        first = self._engine.seconds(self._prompts(batch, length), [1] * batch, temperature)
        whole = self._engine.seconds(self._prompts(batch, length), [answer] * batch, temperature)
        return (whole - first) / (answer - 1) * 1e3

    def _nano(self) -> float:
        lengths, answers = nano_lengths(self._sizes)
        prompts = [self._prompts(1, len(prompt))[0] for prompt in lengths]
        return sum(answers) / self._engine.seconds(prompts, answers, 0.6)

    def _prefill(self) -> float:
        count, length = self._sizes.prefill
        return count * length / self._engine.seconds(self._prompts(count, length), [1] * count, 0.0)


def measurements(workloads: Workloads, wanted: Sequence[str], repeats: int) -> Iterator[dict[str, object]]:
    """Each row's median, with all its runs; the two long ones are run twice at most."""
    workloads.warm_up()
    for row in wanted:
        runs = [workloads.measure(row) for _ in range(min(repeats, 2) if row == "nano-vllm" else repeats)]
        yield {"row": row, "value": statistics.median(runs), "runs": runs}


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="the module to import: headrace or vllm")
    parser.add_argument("folder")
    parser.add_argument("--options", type=json.loads, default={}, help="arguments of LLM, as JSON")
    parser.add_argument("--rows", default="", help="names separated by commas; all without")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    sizes = TINY if arguments.tiny else FULL
    wanted = [row for row in arguments.rows.split(",") if row] or rows(sizes)
    engine = Engine(arguments.engine, arguments.folder, {"max_model_len": sizes.max_model_len, **arguments.options})
    start = {"import": engine.import_seconds, "constructor": engine.constructor_seconds}
    print(json.dumps({"row": "start", "value": sum(start.values()), "runs": [start]}), flush=True)
    for measured in measurements(Workloads(engine, sizes), wanted, arguments.repeats):
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
