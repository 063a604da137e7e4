"""The engine on this CPU, beside transformers (and vLLM's CPU build, where installed), interleaved in one run.

    python benchmarks/cpu.py [--rounds 3] [--modes none,int8,int4] [--peers transformers,vllm] [--json FILE]

Each measurement is a process of its own, with the environment as it is: batch 1, 8 and 32, prompts of exactly 128
tokens, 128 tokens out, greedy. A row is the median over the rounds; `foreign` is the largest share of the cores that
others took meanwhile, and a row above 5 % is marked with `!`: do not quote it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
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
    """The largest resident size this process ever had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


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

    llm = LLM(model, dtype="bfloat16", enforce_eager=True, max_model_len=1024, enable_prefix_caching=False)
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


RUNNERS = {"headrace": run_headrace, "transformers": run_transformers, "vllm": run_vllm}


def child(engine: str, mode: str, model: str, batch: int) -> None:
    """One measurement in this process; the result is the last line of standard output."""
    started = float(os.environ["BENCH_STARTED"])
    result = RUNNERS[engine](mode, model, batch)
    result["ready_s"] = result.pop("ready_at") - started
    print(json.dumps({**result, "rss_mb": peak_rss_mb()}))


def measure(engine: str, mode: str, model: str, batch: int) -> dict[str, float] | None:
    """One measurement in a process of its own; None if it failed (its error goes to standard error)."""
    before, started = cpu_ticks(), time.time()
    command = [sys.executable, __file__, "--child", engine, mode, model, str(batch)]
    environment = {**os.environ, "BENCH_STARTED": str(started)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    result["foreign"] = foreign_share(before, cpu_ticks(), time.time() - started)
    return result


def table(results: dict[tuple[str, str, int], list[dict[str, float]]]) -> str:
    """The medians as a Markdown table."""
    lines = [
        "| engine | mode | batch | ready s | TTFT s | decode tok/s | total tok/s | peak RSS MB | foreign | runs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (engine, mode, batch), runs in sorted(results.items(), key=lambda item: (item[0][2], item[0][:2])):
        if not runs:
            lines.append(f"| {engine} | {mode} | {batch} | failed | | | | | | 0 |")
            continue
        ready, ttft, decode, total, rss = (statistics.median(run[field] for run in runs) for field in FIELDS)
        foreign = max(run["foreign"] for run in runs)
        mark = " !" if foreign > FOREIGN_LIMIT else ""
        lines.append(
            f"| {engine} | {mode} | {batch} | {ready:.1f} | {ttft:.3f} | {decode:.1f} | {total:.1f} | {rss:.0f} "
            f"| {foreign:.2f}{mark} | {len(runs)} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Measure all engines in turn, as many rounds as asked, and print the table after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default="none,int8,int4")
    parser.add_argument("--peers", default="transformers")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--model", default="embedded", help="a Hugging Face directory, or the embedded model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    entries = [("headrace", mode) for mode in options.modes.split(",") if mode]
    for peer in filter(None, options.peers.split(",")):
        if find_spec(peer) is None:
            print(f"{peer} is not installed: left out")
        else:
            entries.append((peer, "bf16"))
    batches = [int(batch) for batch in options.batches.split(",")]
    results: dict[tuple[str, str, int], list[dict[str, float]]] = {
        (engine, mode, batch): [] for batch in batches for engine, mode in entries
    }
    for round_number in range(options.rounds):
        for key, runs in results.items():
            if found := measure(key[0], key[1], options.model, key[2]):
                runs.append(found)
        print(f"\nafter round {round_number + 1}\n{table(results)}", flush=True)
    if options.json:
        rows = [{"engine": e, "mode": m, "batch": b, "runs": runs} for (e, m, b), runs in results.items()]
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main(sys.argv[1:])
