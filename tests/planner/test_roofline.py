"""Predicted speed, against steps of vLLM 0.26 that were measured on one H100 (random weights, 2026-11-23)."""

import pytest

from headrace.planner.catalogue import find_known
from headrace.planner.facts import facts_of_known
from headrace.planner.formats import scheme_named
from headrace.planner.gpus import find_gpu
from headrace.planner.plan import Plan, plan_on
from headrace.planner.roofline import ERROR_BAND, decode_speed, prefill_seconds
from headrace.planner.serving import Serving


def plan(name: str, gpu: str = "H100", **serving: object) -> Plan:
    """A plan for a model of the catalogue."""
    known = find_known(name)
    assert known is not None
    return plan_on(facts_of_known(known, name), Serving(**serving), find_gpu(gpu))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "batch", "context", "milliseconds"),
    [
        ("Qwen/Qwen3-0.6B", 1, 256, 1.56),
        ("Qwen/Qwen3-0.6B", 128, 640, 5.57),
        ("Qwen/Qwen3-0.6B", 256, 640, 8.95),
        ("meta-llama/Llama-3.1-8B", 1, 256, 6.52),
        ("meta-llama/Llama-3.1-8B", 8, 640, 6.85),
        ("meta-llama/Llama-3.1-8B", 32, 640, 7.63),
        ("meta-llama/Llama-3.1-8B", 128, 640, 11.40),
    ],
)
def test_measured_steps_lie_in_the_error_band(name: str, batch: int, context: int, milliseconds: float) -> None:
    predicted = decode_speed(plan(name), batch, context).step_seconds * 1000
    assert predicted == pytest.approx(milliseconds, rel=ERROR_BAND)


def test_measured_prefill_is_about_as_predicted() -> None:
    """32 prompts of 2,048 tokens at 347,700 tokens a second."""
    assert prefill_seconds(plan("Qwen/Qwen3-0.6B"), 2048) * 32 == pytest.approx(32 * 2048 / 347_700, rel=0.3)


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
