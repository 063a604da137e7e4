"""Planned against real GPU memory: `python benchmarks/gpu_memory.py [--json FILE] [--only NAME] [flags of an engine]`.

For each model of the planner's catalogue an engine is built with made-up weights, in a process of its own, and driven
through steps at its limits: prompts that fill a step to the last token, then as many sequences as may run, each
sampled from the whole vocabulary. Each part is what torch says it allocated while it was built (`memory_allocated`),
or what the driver says is gone (`mem_get_info`) where torch does not know of it: the context, and the graphs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MODELS = ("Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-14B")
STEPS_OF_DECODING = 16
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that were planned for one part of the memory, and bytes that were taken."""

    name: str
    planned: int
    real: int

    @property
    def error(self) -> float:
        """Of the plan, relative to what was there."""
        return self.planned / self.real - 1 if self.real else 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes by which memory grew while something was built: torch's tensors, and all that the driver gave out."""

    torch: int
    driver: int


def main() -> None:
    """Measure each model in a process of its own, and print a table that Markdown reads."""
    arguments = _arguments()
    if arguments.child is not None:
        print(json.dumps(measure(arguments.child, _flags(arguments))))
        return
    found = [_in_a_process(name) for name in MODELS if arguments.only in name]
    for result in found:
        _print(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(name: str, flags: dict[str, Any]) -> dict[str, Any]:
    """Plan, build and drive one engine; its parts, and the whole as the driver sees it."""
    import torch

    from headrace.core.config import EngineConfig
    from headrace.engine import build

    torch.cuda.init()
    before = _taken()
    with tempfile.TemporaryDirectory() as folder:
        _write_config(name, Path(folder))
        config = EngineConfig.from_kwargs(model=folder, load_format="dummy", skip_tokenizer_init=True, **flags)
        plan = build.plan_engine(config, build.find_files(config))
        taken: dict[str, Taken] = {}
        with _watched(build, taken):
            loaded = build.load_engine(config, with_tokenizer=False)
    at_rest = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    _drive(loaded.engine, plan.limits, plan.shape.vocab_size, plan.cache.num_blocks * config.block_size)
    peak, end = torch.cuda.max_memory_allocated(), _taken()
    properties = torch.cuda.get_device_properties(0)
    return {
        "model": name,
        "gpu": properties.name,
        "torch": torch.__version__,
        "total": torch.cuda.mem_get_info()[1],
        "allowed": plan.memory.allowed_bytes,
        "context_at_start": before,
        "blocks": plan.cache.num_blocks,
        "flags": flags,
        "parts": [{**asdict(part), "error": part.error} for part in _parts(plan, taken, peak - at_rest, end)],
    }


def _parts(plan: Any, taken: dict[str, Taken], step_peak: int, end: int) -> list[Part]:
    """`step_peak` is what a step took beyond what was there at rest, `end` what was gone after all steps."""
    import torch

    planned = {line.label: line.nbytes for line in plan.memory.lines}
    kv = plan.cache.num_blocks * plan.memory.block_bytes
    step = sum(planned.get(label, 0) for label in ("Activations", "Logits and sampling", "Unpacked weights"))
    runner, reserved = taken["make_runner"], torch.cuda.memory_reserved()
    unused = reserved - torch.cuda.max_memory_allocated()
    return [
        Part("weights, rotary table", planned["Weights"] + planned.get("Rotary table", 0), taken["load_model"].torch),
        Part("KV cache", kv, taken["kv_cache"].torch),
        Part("step: activations, logits, sampling", step, runner.torch + step_peak),
        Part("CUDA graphs", planned.get("CUDA graphs", 0), _graphs(runner)),
        Part("CUDA context, kernels", planned.get("CUDA context", 0), end - reserved - _graphs(runner)),
        Part("held by torch and not in use", planned.get("Fragmentation", 0), unused),
        Part("all", plan.memory.fixed_bytes + kv, end),
    ]


def _graphs(runner: Taken) -> int:
    return max(0, runner.driver - runner.torch)


@contextmanager
def _watched(module: Any, taken: dict[str, Taken]) -> Iterator[None]:
    """Record what each function that builds a part of the engine takes."""
    names = ("load_model", "kv_cache", "make_runner")
    plain = {name: getattr(module, name) for name in names}
    for name in names:
        setattr(module, name, _recorded(name, plain[name], taken))
    try:
        yield
    finally:
        for name in names:
            setattr(module, name, plain[name])


def _recorded(name: str, function: Callable[..., Any], taken: dict[str, Taken]) -> Callable[..., Any]:
    import torch

    def recorded(*args: Any, **kwargs: Any) -> Any:
        torch.cuda.empty_cache()
        allocated, driver = torch.cuda.memory_allocated(), _taken()
        result = function(*args, **kwargs)
        torch.cuda.empty_cache()
        taken[name] = Taken(torch.cuda.memory_allocated() - allocated, _taken() - driver)
        return result

    return recorded


def _taken() -> int:
    import torch

    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return total - free


def _drive(engine: Any, limits: Any, vocab_size: int, cache_tokens: int) -> None:
    """Steps at the limits: one long prompt's whole chunk first, then as many sequences as may run."""
    import torch

    from headrace.core.sampling_params import SamplingParams
    from headrace.wire.messages import AddRequest

    generator = torch.Generator().manual_seed(0)
    each = max(1, min(limits.max_num_batched_tokens, cache_tokens // 2) // limits.max_num_seqs)
    for uid in range(limits.max_num_seqs):
        prompt = torch.randint(0, vocab_size, (each,), generator=generator).tolist()
        params = SamplingParams(temperature=1.0, top_p=0.9, max_tokens=STEPS_OF_DECODING, ignore_eos=True)
        engine.add(AddRequest([uid], prompt, params))
    while engine.has_work:
        engine.step()


def _write_config(name: str, folder: Path) -> None:
    from headrace.planner.catalogue import find_known

    known = find_known(name)
    if known is None:
        raise SystemExit(f"{name} is not in the planner's catalogue")
    (folder / "config.json").write_text(json.dumps(dict(known.config)))


def _in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, *sys.argv[1:]]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _print(result: dict[str, Any]) -> None:
    print(f"\n{result['model']} on {result['gpu']}, torch {result['torch']}: {result['blocks']:,} blocks, flags")
    print(
        f"{json.dumps(result['flags'])}; {result['allowed'] / MIB:,.0f} of {result['total'] / MIB:,.0f} MiB allowed\n"
    )
    print("| part | planned MiB | real MiB | error |\n|---|---|---|---|")
    for part in result["parts"]:
        print(
            f"| {part['name']} | {part['planned'] / MIB:,.0f} | {part['real'] / MIB:,.0f} | {part['error']:+.1%} |",
            flush=True,
        )


def _flags(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "enforce_eager", "quantization")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also keep the figures here")
    parser.add_argument("--only", default="", help="models whose name holds this")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--enforce-eager", action="store_true", default=None)
    parser.add_argument("--quantization")
    return parser.parse_args()


if __name__ == "__main__":
    main()
