"""Predicted speed, against steps that were measured on an H100 and a setup that others have published."""

import importlib.util
import json
import random
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from headrace.planner.catalogue import find_known
from headrace.planner.facts import facts_of_known
from headrace.planner.formats import scheme_named
from headrace.planner.gpus import Gpu, find_gpu
from headrace.planner.plan import Plan, plan_on
from headrace.planner.roofline import ERROR_BAND, decode_speed, error_band, fitted, prefill_seconds
from headrace.planner.serving import Serving

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MEASURED = json.loads((BENCHMARKS / "roofline.json").read_text())
LAPTOP = Gpu("RTX-4070-Laptop", (), 8188, 7.77, 256, 62, 124, "8.9", 1, "")


def plan(name: str, gpu: str | Gpu = "H100", **serving: object) -> Plan:
    """A plan for a model of the catalogue."""
    known = find_known(name)
    assert known is not None
    card = find_gpu(gpu) if isinstance(gpu, str) else gpu
    return plan_on(facts_of_known(known, name), Serving(**serving), card)  # type: ignore[arg-type]


def label(step: dict[str, object]) -> str:
    """Of a measured step."""
    return f"{step['model']} {step['phase']} {step['batch']} x {step['context']}"


@pytest.mark.parametrize("step", MEASURED["measured"], ids=label)
def test_measured_steps_lie_in_the_error_band(step: dict[str, object]) -> None:
    of, batch, context = plan(str(step["model"]), MEASURED["gpu"]), int(str(step["batch"])), int(str(step["context"]))
    seconds = decode_speed(of, batch, context).step_seconds
    if step["phase"] == "prefill":
        seconds = batch * prefill_seconds(of, context)
    assert seconds * 1000 == pytest.approx(float(str(step["ms"])), rel=ERROR_BAND)


@pytest.fixture(scope="module")
def fitting() -> ModuleType:
    """The script that fits."""
    spec = importlib.util.spec_from_file_location("fit_roofline", BENCHMARKS / "fit_roofline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_rates_are_those_of_the_measurements(fitting: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """The kept ones are what the script makes of its file, and none is beyond what hardware gives."""
    steps = [fitting.read_step(entry, MEASURED["gpu"]) for entry in MEASURED["measured"] if entry["fit"]]
    again = fitting.fit(steps)
    kept = fitted()
    for name in again.__dataclass_fields__:
        assert getattr(again, name) == pytest.approx(getattr(kept.efficiency, name), rel=0.02)
    assert kept.as_of == max(entry["as_of"] for entry in MEASURED["measured"])
    assert 1e-6 < kept.efficiency.kernel_seconds < 10e-6
    assert all(0.3 < getattr(again, name) < 1 for name in again.__dataclass_fields__ if name.endswith("share"))


@dataclass
class Request:
    """One that is answered: tokens that it has, and tokens to come."""

    length: int
    remaining: int


def published_tokens_a_second(of: Plan) -> float:
    """256 requests of 100 to 1,024 random tokens in and as many out, all there at once: prompts first, then steps."""
    rng = random.Random(0)
    waiting = deque(Request(rng.randint(100, 1024), rng.randint(100, 1024)) for _ in range(256))
    total, seconds, running = sum(request.remaining for request in waiting), 0.0, []
    while waiting or running:
        held = sum(request.length + 1 for request in running)
        admitted = []
        while waiting and held + waiting[0].length <= of.cache_tokens:
            held += waiting[0].length
            admitted.append(waiting.popleft())
        seconds += prefill_seconds(of, sum(request.length for request in admitted)) if admitted else 0.0
        running += admitted
        while sum(request.length + 1 for request in running) > of.cache_tokens:
            waiting.appendleft(running.pop())
        mean = sum(request.length for request in running) // len(running)
        seconds += decode_speed(of, len(running), mean).step_seconds
        for request in running:
            request.length, request.remaining = request.length + 1, request.remaining - 1
        running = [request for request in running if request.remaining]
    return total / seconds


def test_a_published_setup() -> None:
    """nano-vLLM's own table: Qwen3-0.6B on a laptop's RTX 4070, 1,434 tokens a second, and 1,362 with vLLM."""
    found = published_tokens_a_second(plan("Qwen/Qwen3-0.6B", LAPTOP, max_model_len=4096, max_num_batched_tokens=16384))
    assert found == pytest.approx(1400, rel=0.25)


def test_another_published_figure() -> None:
    """SGLang, Llama-3.1-8B on an H100, one sequence: 158 tokens a second. Our engine, which the rates are of: 186."""
    assert decode_speed(plan("meta-llama/Llama-3.1-8B"), 1, 256).tokens_per_second == pytest.approx(158, rel=0.25)


def test_more_at_once_is_more_tokens_and_each_waits_longer() -> None:
    speeds = [decode_speed(plan("Qwen/Qwen3-8B"), batch, 1000) for batch in (1, 8, 64)]
    assert speeds == sorted(speeds, key=lambda speed: speed.tokens_per_second)
    assert speeds == sorted(speeds, key=lambda speed: speed.step_seconds)


def test_few_tokens_read_few_experts() -> None:
    mixture = plan("Qwen/Qwen3-30B-A3B")
    dense = plan("Qwen/Qwen3-32B")
    assert decode_speed(mixture, 1, 100).step_seconds < 0.3 * decode_speed(dense, 1, 100).step_seconds
    assert decode_speed(mixture, 256, 100).step_seconds > 0.5 * decode_speed(dense, 256, 100).step_seconds


def test_smaller_weights_and_more_gpus_are_faster() -> None:
    whole = decode_speed(plan("meta-llama/Llama-3.1-70B"), 1, 1000).step_seconds
    fp8 = plan("meta-llama/Llama-3.1-70B", scheme=scheme_named("fp8", "bfloat16"))
    assert decode_speed(fp8, 1, 1000).step_seconds < 0.6 * whole
    assert decode_speed(plan("meta-llama/Llama-3.1-70B", tensor_parallel_size=4), 1, 1000).step_seconds < 0.35 * whole


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_weights_that_torch_unpacks_are_not_faster(name: str) -> None:
    """Whatever they save in memory; and nothing was measured that an error could be said of."""
    plain, packed = plan("Qwen/Qwen3-8B"), plan("Qwen/Qwen3-8B", scheme=scheme_named(name, "bfloat16"))
    for batch in (1, 32, 256):
        assert decode_speed(packed, batch, 500).step_seconds > decode_speed(plain, batch, 500).step_seconds
    assert prefill_seconds(packed, 4096) > prefill_seconds(plain, 4096)
    assert (error_band(packed), error_band(plain)) == (None, ERROR_BAND)


def test_a_long_prompt_takes_its_steps() -> None:
    of = plan("Qwen/Qwen3-8B", max_num_batched_tokens=2048)
    assert prefill_seconds(of, 16384) > 8 * prefill_seconds(of, 2048)
