"""Decode steps of the engine by themselves: `python benchmarks/gpu_steps.py MODEL [--profile]`.

MODEL is a name of the planner's catalogue. As many sequences as a row of `STEPS` says are brought to its context, with
made-up weights; then whole steps of the engine are timed, host and device together. Prints one entry of
`roofline.json` a line; --profile adds what the device did in a step, by kernel, to standard error.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from gpu_models import MODELS, make_folder
from headrace.core.config import EngineConfig
from headrace.core.sampling_params import SamplingParams
from headrace.engine.build import load_engine
from headrace.engine.engine import Engine
from headrace.planner.catalogue import find_known
from headrace.wire.messages import AddRequest

STEPS = (
    (1, 640),
    (8, 640),
    (32, 640),
    (64, 640),
    (128, 640),
    (256, 640),
    (1, 4096),
    (32, 2048),
    (128, 256),
    (256, 1024),
)
"""Sequences, and tokens of each."""
_TIMED, _UNTIMED, _PROFILED = 40, 8, 6


def main() -> None:
    """Time every row that the cache holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = model_folder(arguments.model, Path(parent))
        config = EngineConfig(str(folder), load_format="dummy", max_model_len=8192)
        loaded = load_engine(config, with_tokenizer=False)
        for batch, context in STEPS:
            if loaded.engine.stats().num_blocks * config.block_size > 1.1 * batch * context:
                ms = step_ms(loaded.engine, batch, context, profile=arguments.profile)
                entry = {"model": arguments.model, "phase": "decode", "batch": batch, "context": context, "ms": ms}
                print(json.dumps(entry | {"as_of": date.today().isoformat()}), flush=True)
        loaded.close()


def model_folder(name: str, parent: Path) -> Path:
    """A folder with the model's config.json; the models of `gpu.py` are complete, others are Qwen3's."""
    if name in MODELS:
        return make_folder(name, parent)
    known = find_known(name)
    if known is None:
        sys.exit(f"{name} is not in the planner's catalogue")
    common = {"architectures": ["Qwen3ForCausalLM"], "rms_norm_eps": 1e-6, "rope_theta": 1e6, "torch_dtype": "bfloat16"}
    (parent / "config.json").write_text(json.dumps({**common, **known.config}))
    return parent


def step_ms(engine: Engine, batch: int, context: int, *, profile: bool) -> float:
    """Milliseconds of a step in which `batch` sequences add a token to about `context`, temperature 0.6."""
    params = SamplingParams(temperature=0.6, max_tokens=500, ignore_eos=True)
    for uid in range(batch):
        prompt = [random.randrange(1000) for _ in range(context - _TIMED)]
        engine.add(AddRequest([uid], prompt, params, []))
    while engine.scheduler.waiting or any(each.num_to_compute > 1 for each in engine.scheduler.running):
        engine.step()
    run_steps(engine, _UNTIMED)
    seconds = run_steps(engine, _TIMED)
    if profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
            run_steps(engine, _PROFILED)
        print(profiled.key_averages().table(sort_by="cuda_time_total", row_limit=14), file=sys.stderr)
    engine.reset()
    return round(seconds / _TIMED * 1e3, 3)


def run_steps(engine: Engine, count: int) -> float:
    """Seconds for `count` steps, the device's work included."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        engine.step()
    torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
