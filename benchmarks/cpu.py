"""The engine on this CPU, beside transformers, vLLM's CPU build and llama.cpp where installed, interleaved in one run.

    python benchmarks/cpu.py [--rounds 3] [--modes none,int8,int4] [--peers transformers,vllm,llama.cpp] [--json FILE]
        [--model DIR] [--vllm-python PATH --vllm-model DIR] [--gguf bf16=FILE,q8_0=FILE]

Each measurement is a process of its own, with the environment as it is: batch 1, 8 and 32, prompts of exactly 128
tokens, 128 tokens out, greedy. A row is the median over the rounds; `foreign` is the largest share of the cores that
others took meanwhile, and a row above 5 % is marked with `!`: do not quote it.

vLLM pins another torch, so it has a virtual environment of its own, and reads no GGUF, so it needs a Hugging Face
directory. llama.cpp is measured by its own `llama-batched-bench`, which is to be on the PATH; it runs the embedded
file, or those named by --gguf. It reports no time to ready, and prefills a batch as a whole before it decodes.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROMPT_TOKENS = OUTPUT_TOKENS = 128
BATCHES = (1, 8, 32)
FOREIGN_LIMIT = 0.05
FIELDS = ("ready_s", "ttft_s", "decode_tok_s", "total_tok_s", "rss_mb")


def prompts(count: int) -> list[list[int]]:
    """Token ids that no two prompts share a prefix of."""
    return [[(7 * i + 13 * j) % 40_000 + 500 for j in range(PROMPT_TOKENS)] for i in range(count)]


def cpu_ticks() -> tuple[int, int]:
    """(busy ticks of the whole machine, this process's own and its children's)."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    busy = sum(values) - values[3] - values[4]
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return busy, round(own * os.sysconf("SC_CLK_TCK"))


def foreign_share(before: tuple[int, int], after: tuple[int, int], seconds: float) -> float:
    """The share of all cores that other processes took between two readings."""
    others = (after[0] - before[0]) - (after[1] - before[1])
    return max(0.0, others / (seconds * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)))


def peak_rss_mb() -> float:
    """The largest resident size that this process or one of its children ever had."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(each).ru_maxrss for each in who) / 1024


def timed(step: Callable[[], int], batch: int) -> dict[str, float]:
    """Times a batch from `step`, which makes one token for each sequence and says how many sequences got one."""
    started = time.perf_counter()
    first = made = 0
    while made < batch * OUTPUT_TOKENS:
        made += step()
        if not first and made >= batch:
            first, first_at = made, time.perf_counter()
    end = time.perf_counter()
    return {
        "ttft_s": first_at - started,
        "decode_tok_s": (made - first) / (end - first_at),
        "total_tok_s": made / (end - started),
    }


def run_headrace(mode: str, model: str, batch: int) -> dict[str, float]:
    """Our engine, stepped by hand so that the first token of the whole batch can be timed."""
    from headrace.core.config import EngineConfig
    from headrace.core.sampling_params import SamplingParams
    from headrace.engine.build import load_engine
    from headrace.wire.messages import AddRequest

    arguments = {} if model == "embedded" else {"model": model}
    config = EngineConfig.from_kwargs(**arguments, quantization=mode, enable_prefix_caching=False, max_model_len=1024)
    engine = load_engine(config, with_tokenizer=False).engine
    params = SamplingParams(temperature=0, max_tokens=OUTPUT_TOKENS, ignore_eos=True)
    warm_up = [[1, 2, 3, 4]] * batch
    for uid, prompt in enumerate(warm_up):
        engine.add(AddRequest([uid], prompt, SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)))
    while engine.has_work:
        engine.step()
    ready = time.time()
    for uid, prompt in enumerate(prompts(batch), start=batch):
        engine.add(AddRequest([uid], prompt, params))

    def step() -> int:
        output = engine.step()
        return len(output.uids) // 8 if output else 0

    return {"ready_at": ready, **timed(step, batch)}


def run_transformers(mode: str, model: str, batch: int) -> dict[str, float]:
    """`generate` on a fixed batch; its first token is timed by a streamer."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.generation.streamers import BaseStreamer

    from headrace.store import embedded

    torch.set_grad_enabled(False)
    if model == "embedded":
        path = embedded.fetch()
        options = {"gguf_file": path.name, "quantization_config": GgufConfig(dequantize=True)}
        net = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.bfloat16, **options)
    else:
        net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)

    class Clock(BaseStreamer):
        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: object) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    def generate(ids: list[list[int]], count: int) -> list[float]:
        clock = Clock()
        tokens = torch.tensor(ids)
        options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        net.generate(
            tokens, attention_mask=torch.ones_like(tokens), streamer=clock if len(ids) == 1 else None, **options
        )
        return clock.times

    generate([[1, 2, 3, 4]] * batch, 4)
    ready = time.time()
    ids, started = prompts(batch), time.perf_counter()
    times = generate(ids, OUTPUT_TOKENS)
    end = time.perf_counter()
    if batch > 1:  # generate streams single sequences only: time the first token by a run of its own
        again = time.perf_counter()
        generate(ids, 1)
        first = time.perf_counter() - again
    else:
        first = times[1] - started
    rest = end - started - first
    return {
        "ready_at": ready,
        "ttft_s": first,
        "decode_tok_s": batch * (OUTPUT_TOKENS - 1) / rest,
        "total_tok_s": batch * OUTPUT_TOKENS / (end - started),
    }


def run_vllm(mode: str, model: str, batch: int) -> dict[str, float]:
    """vLLM's CPU build on a Hugging Face directory (it reads no GGUF)."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    options = {"dtype": "bfloat16", "enforce_eager": mode == "bf16 eager", "max_model_len": 1024}
    llm = LLM(model, **options, enable_prefix_caching=False)
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    llm.generate([TokensPrompt(prompt_token_ids=[1, 2, 3, 4])] * batch, params, use_tqdm=False)
    ready = time.time()
    wanted = [TokensPrompt(prompt_token_ids=ids) for ids in prompts(batch)]
    started = time.perf_counter()
    llm.generate(wanted, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True), use_tqdm=False)
    first = time.perf_counter() - started
    started = time.perf_counter()
    params = SamplingParams(temperature=0, max_tokens=OUTPUT_TOKENS, ignore_eos=True)
    llm.generate(wanted, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    return {
        "ready_at": ready,
        "ttft_s": first,
        "decode_tok_s": batch * (OUTPUT_TOKENS - 1) / (seconds - first),
        "total_tok_s": batch * OUTPUT_TOKENS / seconds,
    }


def run_llama_cpp(mode: str, model: str, batch: int) -> dict[str, float]:
    """llama.cpp's own bench on a GGUF file: as many threads as there are cores, context for the whole batch."""
    context = batch * (PROMPT_TOKENS + OUTPUT_TOKENS)
    command = ["llama-batched-bench", "-m", model, "-t", str(os.cpu_count()), "-c", str(context)]
    command += ["-npp", str(PROMPT_TOKENS), "-ntg", str(OUTPUT_TOKENS), "-npl", str(batch), "--output-format", "jsonl"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return {
        "ready_at": float("nan"),
        "ttft_s": result["t_pp"],
        "decode_tok_s": result["speed_tg"],
        "total_tok_s": batch * OUTPUT_TOKENS / result["t"],
    }


RUNNERS = {"headrace": run_headrace, "transformers": run_transformers, "vllm": run_vllm, "llama.cpp": run_llama_cpp}


@dataclass(frozen=True)
class Entry:
    """One row of the table for each batch: an engine, how it runs, on what, and which Python runs it."""

    engine: str
    mode: str
    model: str
    python: str = sys.executable
    runs: dict[int, list[dict[str, float]]] = field(default_factory=dict)


def child(engine: str, mode: str, model: str, batch: int) -> None:
    """One measurement in this process; the result is the last line of standard output."""
    started = float(os.environ["BENCH_STARTED"])
    result = RUNNERS[engine](mode, model, batch)
    result["ready_s"] = result.pop("ready_at") - started
    print(json.dumps({**result, "rss_mb": peak_rss_mb()}))


def measure(entry: Entry, batch: int) -> dict[str, float] | None:
    """One measurement in a process of its own; None if it failed (its error goes to standard error)."""
    before, started = cpu_ticks(), time.time()
    command = [entry.python, __file__, "--child", entry.engine, entry.mode, entry.model, str(batch)]
    environment = {**os.environ, "BENCH_STARTED": str(started)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    result["foreign"] = foreign_share(before, cpu_ticks(), time.time() - started)
    return result


def table(entries: Sequence[Entry], batches: Sequence[int]) -> str:
    """The medians as a Markdown table."""
    lines = [
        "| engine | mode | batch | ready s | TTFT s | decode tok/s | total tok/s | peak RSS MB | foreign | runs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for batch in batches:
        lines += [row(entry, batch, entry.runs[batch]) for entry in entries]
    return "\n".join(lines)


def row(entry: Entry, batch: int, runs: Sequence[dict[str, float]]) -> str:
    """One line of the table."""
    head = f"| {entry.engine} | {entry.mode} | {batch} |"
    if not runs:
        return f"{head} failed | | | | | | 0 |"
    ready, ttft, decode, total, rss = (statistics.median(run[name] for run in runs) for name in FIELDS)
    foreign = max(run["foreign"] for run in runs)
    mark = " !" if foreign > FOREIGN_LIMIT else ""
    shown_ready = "-" if ready != ready else f"{ready:.1f}"
    numbers = f"{shown_ready} | {ttft:.3f} | {decode:.1f} | {total:.1f} | {rss:.0f} | {foreign:.2f}{mark} | {len(runs)}"
    return f"{head} {numbers} |"


def is_installed(python: str, module: str) -> bool:
    """Whether that interpreter finds the module."""
    probe = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", probe], check=False).returncode == 0


def peer_entries(options: argparse.Namespace) -> list[Entry]:
    """The peers that were asked for and are installed; says which are not."""
    wanted: set[str] = set(filter(None, options.peers.split(",")))
    found: list[Entry] = []
    if "transformers" in wanted and is_installed(sys.executable, "transformers"):
        found.append(Entry("transformers", "bf16", options.model))
    if "vllm" in wanted and is_installed(options.vllm_python, "vllm"):
        directory = options.vllm_model or options.model
        found.append(Entry("vllm", "bf16 eager", directory, options.vllm_python))
    if "llama.cpp" in wanted and shutil.which("llama-batched-bench"):
        found += [Entry("llama.cpp", *pair.split("=", 1)) for pair in options.gguf.split(",")]
    for missing in sorted(wanted - {entry.engine for entry in found}):
        print(f"{missing} is not installed: left out")
    return found


def embedded_file() -> str:
    """The embedded model's file, as llama.cpp takes it."""
    from headrace.store import embedded

    return f"q4_1={embedded.fetch()}"


def main(argv: Sequence[str]) -> None:
    """Measure all engines in turn, as many rounds as asked, and print the table after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default="none,int8,int4")
    parser.add_argument("--peers", default="transformers,vllm,llama.cpp")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--model", default="embedded", help="a Hugging Face directory, or the embedded model")
    parser.add_argument("--vllm-python", default=sys.executable, help="the interpreter that has vLLM")
    parser.add_argument("--vllm-model", help="a Hugging Face directory for vLLM")
    parser.add_argument("--gguf", help="NAME=FILE,... for llama.cpp; without it the embedded model's file")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    options.gguf = options.gguf or embedded_file()
    entries = [Entry("headrace", mode, options.model) for mode in options.modes.split(",") if mode]
    entries += peer_entries(options)
    batches = [int(batch) for batch in options.batches.split(",")]
    for round_number in range(options.rounds):
        for batch in batches:
            for entry in entries:
                found = measure(entry, batch)
                entry.runs.setdefault(batch, []).extend([found] if found else [])
        print(f"\nafter round {round_number + 1}\n{table(entries, batches)}", flush=True)
    if options.json:
        rows = [{"engine": e.engine, "mode": e.mode, "batch": b, "runs": e.runs[b]} for e in entries for b in batches]
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main(sys.argv[1:])
