"""The cache plan: never beyond the budget, and a refusal whose cure works."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import HeadraceError
from headrace.planner.cache_plan import CachePlan, MemoryBudget, cpu_budget, plan_cache
from headrace.planner.memory import GIB, kv_block_bytes
from headrace.planner.outline.from_shape import longest_context
from headrace.planner.shape import ModelShape, RopeScaling

SHAPE = ModelShape(
    architecture="LlamaForCausalLM",
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope_theta=1e4,
    tie_word_embeddings=True,
)
BLOCK = kv_block_bytes(SHAPE, 32, 2)


def budget_of(blocks: float, room: int = 0) -> MemoryBudget:
    """A budget for `blocks` blocks, with room for as many more if the user allows it."""
    return MemoryBudget(int((blocks + room) * BLOCK) + 300, 200, 100, int(blocks * BLOCK))


def plan(budget: MemoryBudget, **kwargs: object) -> CachePlan:
    """A plan with blocks of 32 tokens of 16-bit keys and values."""
    return plan_cache(SHAPE, budget, block_size=32, kv_dtype_bytes=2, **kwargs)  # type: ignore[arg-type]


def test_a_context_that_fits_is_the_models() -> None:
    outcome = plan(budget_of(1000.7))
    assert (outcome.num_blocks, outcome.max_model_len) == (1000, 8192)
    assert outcome.max_concurrency_at_full_length == pytest.approx(1000 / 256)


@pytest.mark.parametrize("asked", [None, "auto"])
def test_a_context_that_nobody_asked_for_is_shortened_and_said_so(asked: object) -> None:
    outcome = plan(budget_of(10), max_model_len=asked)
    assert (outcome.num_blocks, outcome.max_model_len) == (10, 320)
    assert outcome.max_concurrency_at_full_length == 1
    text = " ".join(text for _, text in outcome.lines)
    assert "320 tokens" in text
    assert "the model reaches 8,192" in text


def test_a_context_that_was_asked_for_gets_no_such_note() -> None:
    assert "reaches" not in str(plan(budget_of(1000), max_model_len=64).lines)


def test_no_more_blocks_than_the_sequences_can_fill() -> None:
    budget = budget_of(1000)
    assert plan(budget, max_model_len=33, max_num_seqs=5).num_blocks == 10
    assert plan(replace(budget, kv_asked_for=True), max_model_len=33, max_num_seqs=5).num_blocks == 1000


def test_the_number_of_blocks_may_be_given() -> None:
    outcome = plan(budget_of(1000), num_blocks_override=7)
    assert (outcome.num_blocks, outcome.max_model_len) == (7, 224)
    with pytest.raises(HeadraceError, match="Use --max-model-len 224"):
        plan(budget_of(1000), num_blocks_override=7, max_model_len=225)


@pytest.mark.parametrize("room", [0, 10_000])
@given(blocks=st.integers(1, 200), asked=st.integers(1, 8192))
def test_a_refused_context_names_a_cure_that_works(room: int, blocks: int, asked: int) -> None:
    budget = budget_of(blocks, room)
    try:
        outcome = plan(budget, max_model_len=asked)
    except HeadraceError as error:
        assert asked > blocks * 32
        assert str(asked) in error.what
        for part in ("weights", "activations", "KV cache needed", "memory available", "GiB"):
            assert part in error.rule
        outcome = apply(error.fix, budget, asked)
        assert outcome.max_model_len == (asked if room else blocks * 32)
        budget = replace(budget, kv_bytes=budget.free_bytes)
    assert outcome.num_blocks * BLOCK <= budget.kv_bytes
    assert outcome.max_concurrency_at_full_length >= 1


def apply(fix: str, budget: MemoryBudget, asked: int) -> CachePlan:
    """Do what an error's fix says."""
    flag, value = re.fullmatch(r"Use --([a-z-]+) (\d+)", fix).groups()  # type: ignore[union-attr]
    if flag == "max-model-len":
        return plan(budget, max_model_len=int(value))
    assert flag == "kv-cache-memory-bytes"
    again = cpu_budget(budget.available_bytes, budget.weight_bytes, budget.activation_bytes, int(value))
    return plan(again, max_model_len=asked)


def test_a_context_beyond_the_model_is_refused_with_both_numbers() -> None:
    with pytest.raises(HeadraceError) as caught:
        plan(budget_of(10_000), max_model_len=8193)
    assert "8193" in caught.value.what
    assert "8192" in caught.value.rule
    assert caught.value.param == "max_model_len"


@pytest.mark.parametrize(
    ("rope", "longest"),
    [
        (RopeScaling(), 8192),
        (RopeScaling("linear", 2.0), 16384),
        (RopeScaling("dynamic", 4.0), 32768),
        (RopeScaling("llama3", 8.0, 1024), 8192),
        (RopeScaling("yarn", 4.0, 8192), 32768),
        (RopeScaling("yarn", 4.0, 2048), 8192),
    ],
    ids=lambda value: value.kind if isinstance(value, RopeScaling) else str(value),
)
def test_rope_scaling_stretches_the_context(rope: RopeScaling, longest: int) -> None:
    assert longest_context(replace(SHAPE, rope_scaling=rope)) == longest


def test_not_one_block() -> None:
    with pytest.raises(HeadraceError) as caught:
        plan(budget_of(0.9, room=10))
    assert f"--kv-cache-memory-bytes {BLOCK}" in caught.value.fix
    with pytest.raises(HeadraceError) as caught:
        plan(budget_of(0.9))
    assert "--quantization int8" in caught.value.fix


def test_the_cpus_share() -> None:
    assert cpu_budget(64 * GIB, 2 * GIB, GIB).kv_bytes == 4 * GIB
    assert cpu_budget(8 * GIB, 2 * GIB, GIB).kv_bytes == 2 * GIB
    assert cpu_budget(8 * GIB, 6 * GIB, GIB).kv_bytes == GIB
    asked = cpu_budget(8 * GIB, 2 * GIB, GIB, kv_cache_memory_bytes=5 * GIB)
    assert (asked.kv_bytes, asked.kv_asked_for) == (5 * GIB, True)


def test_a_model_that_does_not_fit() -> None:
    with pytest.raises(HeadraceError) as caught:
        cpu_budget(8 * GIB, 15 * GIB, GIB)
    assert "weights 15.00, activations 1.00" in caught.value.rule
    assert "memory available 8.00" in caught.value.rule
    assert "--quantization int8" in caught.value.fix


def test_a_cache_that_does_not_fit_names_the_size_that_does() -> None:
    with pytest.raises(HeadraceError) as caught:
        cpu_budget(8 * GIB, 2 * GIB, GIB, kv_cache_memory_bytes=6 * GIB)
    assert caught.value.param == "kv_cache_memory_bytes"
    size = int(caught.value.fix.split()[-1])
    assert cpu_budget(8 * GIB, 2 * GIB, GIB, kv_cache_memory_bytes=size).kv_bytes == 5 * GIB
