"""What one long request costs those beside it: `python benchmarks/long_beside_short.py [--mode none] [--steps 40]`.

Decode steps of 31 sequences of 128 to 256 tokens, the same with one more short one, with one of 8,000 tokens in its
place, and that one alone, in turns within one process. The long one reads `8,000 x KV bytes a token` more each step
than the short one in its place; nobody is padded to it.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from headrace.core.config import EngineConfig
from headrace.core.sampling_params import SamplingParams
from headrace.engine.build import load_engine
from headrace.engine.engine import Engine
from headrace.wire.messages import AddRequest

LONG_TOKENS, SHORT_ROWS = 8_000, 31
ENDLESS = SamplingParams(temperature=0, max_tokens=180, ignore_eos=True)


def prompt(number: int, length: int) -> list[int]:
    """Tokens that share no prefix with another number's."""
    return [(7 * number + 13 * i) % 40_000 + 500 for i in range(length)]


def median_step_ms(engine: Engine, lengths: list[int], steps: int, first_uid: int) -> float:
    """Prefill prompts of these lengths, time decode steps of all of them, and abort them."""
    uids = list(range(first_uid, first_uid + len(lengths)))
    for uid, length in zip(uids, lengths, strict=True):
        engine.add(AddRequest([uid], prompt(uid, length), ENDLESS))
    while any(request.num_to_compute > 1 for request in [*engine.scheduler.running, *engine.scheduler.waiting]):
        engine.step()
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - started)
    engine.abort(uids)
    return statistics.median(times) * 1e3


def main() -> None:
    """Three rounds of the three batches; medians, and the long one's price."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="none")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    config = EngineConfig.from_kwargs(quantization=options.mode, enable_prefix_caching=False)
    engine = load_engine(config, with_tokenizer=False).engine
    short = [128 + 4 * i for i in range(SHORT_ROWS)]
    batches = {"short": short, "one more": [*short, short[-1]], "both": [*short, LONG_TOKENS], "long": [LONG_TOKENS]}
    found: dict[str, list[float]] = {name: [] for name in batches}
    uid = 0
    for _ in range(3):
        for name, lengths in batches.items():
            found[name].append(median_step_ms(engine, lengths, options.steps, uid))
            uid += len(lengths)
    short_ms, more_ms, both_ms, long_ms = (statistics.median(times) for times in found.values())
    print(f"{options.mode}: {SHORT_ROWS} short {short_ms:.1f} ms a step, one more {more_ms:.1f} ms,")
    print(f"the long one in its place {both_ms:.1f} ms, the long one alone {long_ms:.1f} ms;")
    print(f"{both_ms / more_ms - 1:.0%} longer than with the short one, {both_ms / short_ms - 1:.0%} than with neither")


if __name__ == "__main__":
    main()
