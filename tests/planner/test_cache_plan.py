"""The cache plan: never beyond the memory that there is, and a refusal whose cure works."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import HeadraceError
from headrace.planner.cache_plan import CachePlan, plan_cache
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.facts import ModelFacts
from headrace.planner.formats import scheme_named
from headrace.planner.memory import GIB
from headrace.planner.memory_plan import MemoryPlan, memory_plan
from headrace.planner.outline.from_shape import longest_context, outline_of
from headrace.planner.serving import Serving
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
FACTS = ModelFacts("small", outline_of(SHAPE), "a test")
SERVING = Serving(max_num_seqs=4, max_num_batched_tokens=64)
BLOCK = 32 * 2 * 2 * 2 * 16 * 2
WITH_TABLE = BLOCK + 32 * 16 * 4
"""Bytes of a block of keys and values, and with the rotary table's rows for its 32 positions."""


def on_a_gpu(blocks: float, **serving: object) -> MemoryPlan:
    """A GPU whose memory is allowed whole, with room for `blocks` blocks of one sequence beside all else."""
    wanted = replace(SERVING, gpu_memory_utilization=1.0, **serving)  # type: ignore[arg-type]
    fixed = sum(line.nbytes for line in memory_plan(FACTS, wanted, DeviceMemory("cuda", 0)).fixed)
    return memory_plan(FACTS, wanted, DeviceMemory("cuda", fixed + int(blocks * WITH_TABLE)))


def test_all_that_is_left_is_the_caches() -> None:
    plan = on_a_gpu(1000.7)
    outcome = plan_cache(plan)
    assert outcome.max_model_len == 8192
    left = plan.memory.total_bytes - sum(line.nbytes for line in plan.lines)
    assert outcome.num_blocks == left // BLOCK > 1000
    assert outcome.max_concurrency_at_full_length == pytest.approx(outcome.num_blocks / 256)


def test_a_context_that_nobody_asked_for_is_shortened_and_said_so() -> None:
    outcome = plan_cache(on_a_gpu(10.5))
    assert (outcome.num_blocks, outcome.max_model_len) == (10, 320)
    text = " ".join(text for _, text in outcome.lines)
    assert "320 tokens" in text
    assert "the model reaches 8,192" in text
    assert "reaches" not in str(plan_cache(on_a_gpu(1000, max_model_len=64)).lines)


def test_the_number_of_blocks_may_be_given() -> None:
    outcome = plan_cache(on_a_gpu(1000, num_gpu_blocks_override=7))
    assert (outcome.num_blocks, outcome.max_model_len) == (7, 224)
    with pytest.raises(HeadraceError, match="Use --num-gpu-blocks-override 8"):
        plan_cache(on_a_gpu(1000, num_gpu_blocks_override=7, max_model_len=225))


def test_a_host_gives_the_cache_a_share_and_no_more_than_all_sequences_fill() -> None:
    def blocks(free: int, **serving: object) -> int:
        wanted = replace(SERVING, **serving)  # type: ignore[arg-type]
        return plan_cache(memory_plan(FACTS, wanted, DeviceMemory("cpu", free))).num_blocks

    assert blocks(64 * GIB) == 4 * 256
    assert blocks(64 * GIB, max_num_seqs=64, max_model_len=33) == 64 * 2
    assert blocks(64 * GIB, kv_cache_memory_bytes=5 * GIB) == 5 * GIB // BLOCK
    assert blocks(8 * 2**20) == 2 * 2**20 // BLOCK


def test_the_rotary_table_is_of_the_context() -> None:
    short, long = (on_a_gpu(2000, max_model_len=length) for length in (1024, 8192))
    assert long.lines[-1].label == "Rotary table"
    assert long.lines[-1].nbytes - short.lines[-1].nbytes == (8192 - 1024) * 16 * 4


@given(
    gib=st.floats(0.0001, 4),
    share=st.floats(0.3, 1),
    asked=st.none() | st.integers(1, 8192),
    kind=st.sampled_from(["cuda", "cpu"]),
    taken=st.integers(0, GIB),
    cache=st.none() | st.integers(1, 2 * GIB),
    seqs=st.integers(1, 64),
)
def test_a_plan_is_kept_to_or_refused_with_a_cure_that_works(
    gib: float, share: float, asked: int | None, kind: str, taken: int, cache: int | None, seqs: int
) -> None:
    serving = Serving(
        max_model_len=asked, gpu_memory_utilization=share, kv_cache_memory_bytes=cache, max_num_seqs=seqs,
        max_num_batched_tokens=8192,
    )  # fmt: skip
    others = {"others_bytes": taken, "pids": (17, 18)} if kind == "cuda" else {}
    memory = DeviceMemory(kind, int(gib * GIB), **others)  # type: ignore[arg-type]
    plan = memory_plan(FACTS, serving, memory)
    try:
        outcome = plan_cache(plan)
    except HeadraceError as error:
        assert "GiB" in error.rule
        cured = apply(error.fix, serving)
        if cured is None:
            assert re.match("End the processes 17, 18|Use a smaller model", error.fix)
            return
        plan = memory_plan(FACTS, cured, memory)
        outcome = plan_cache(plan)
    assert plan.fixed_bytes + outcome.num_blocks * BLOCK <= memory.allowed_bytes(plan.serving.gpu_memory_utilization)
    assert outcome.num_blocks * 32 >= outcome.max_model_len


def apply(fix: str, serving: Serving) -> Serving | None:
    """Do what an error's fix says; None where it is no flag."""
    if not fix.startswith("Use --"):
        return None
    for name, value in re.findall(r"--([a-z-]+) (\S+)", fix):
        if name == "quantization":
            serving = replace(serving, scheme=scheme_named(value, serving.dtype))
        else:
            changed = {name.replace("-", "_"): float(value) if "." in value else int(value)}
            serving = replace(serving, **changed)  # type: ignore[arg-type]
    return serving


WIDE = {"hidden_size": 4096, "num_layers": 32, "head_dim": 128, "num_heads": 32, "num_kv_heads": 32}
LLAMA = ModelFacts("llama", outline_of(replace(SHAPE, intermediate_size=14336, **WIDE)), "a test")  # type: ignore[arg-type]


def test_a_refusal_is_a_sum_and_what_was_asked_for() -> None:
    serving = Serving(max_model_len=8192, max_num_batched_tokens=2048)
    memory = DeviceMemory("cuda", 24 * GIB, int(6.25 * GIB), pids=(4711,))
    with pytest.raises(HeadraceError) as caught:
        plan_cache(memory_plan(LLAMA, serving, memory))
    found = re.fullmatch(
        r"weights ([\d.]+) \+ activations .* \+ other processes (6\.25) \(pid 4711\) .*= ([\d.]+) of (21\.6) GiB "
        r"allowed; "
        r"--max-model-len 8192 needs 4\.00 GiB(, and the KV cache has 0\.\d+)?",
        caught.value.rule,
    )
    assert found, caught.value.rule
    terms = [float(term) for term in re.findall(r"(?<= )[\d.]+(?= |$)", caught.value.rule.split(" = ")[0])]
    assert sum(terms) == pytest.approx(float(found[3]), abs=0.15)


def test_what_keeps_the_context_is_suggested_first() -> None:
    plan = on_a_gpu(300, max_model_len=8192)
    less = replace(plan.serving, gpu_memory_utilization=0.5)
    for factor, cure in ((1.1, "--gpu-memory-utilization 0.9"), (0.997, "--max-num-batched-tokens|--max-model-len")):
        memory = DeviceMemory("cuda", int(plan.memory.total_bytes * factor))
        with pytest.raises(HeadraceError, match=f"Use ({cure})"):
            plan_cache(memory_plan(FACTS, less if factor > 1 else plan.serving, memory))


def test_other_processes_are_named_where_only_they_are_in_the_way() -> None:
    memory = DeviceMemory("cuda", 22 * GIB, int(21.9 * GIB), pids=(17, 18))
    with pytest.raises(HeadraceError) as caught:
        plan_cache(memory_plan(FACTS, SERVING, memory))
    assert caught.value.fix == "End the processes 17, 18, or use another GPU"
    with pytest.raises(HeadraceError) as caught:
        plan_cache(memory_plan(FACTS, SERVING, replace(memory, pids=())))
    assert caught.value.fix == "End the other processes on this GPU, or use another GPU"


def test_what_this_process_holds_is_named_where_it_is_in_the_way() -> None:
    memory = DeviceMemory("cuda", 22 * GIB, own_bytes=int(21.9 * GIB))
    with pytest.raises(HeadraceError) as caught:
        plan_cache(memory_plan(FACTS, SERVING, memory))
    assert caught.value.fix == "Let go of this process's own tensors: del them, then torch.cuda.empty_cache()"
    with pytest.raises(HeadraceError) as caught:
        plan_cache(memory_plan(FACTS, SERVING, replace(memory, own_models=("Qwen/Qwen3-0.6B",))))
    assert caught.value.fix == "Close what this process has loaded (Qwen/Qwen3-0.6B): llm.close()"
    assert "this process's tensors 21.9 (with Qwen/Qwen3-0.6B, not closed)" in caught.value.rule


def test_what_this_process_holds_is_named_beside_a_flag_that_helps() -> None:
    plan = on_a_gpu(300, max_model_len=8192)
    memory = replace(plan.memory, own_bytes=100 * plan.block_bytes)
    with pytest.raises(HeadraceError, match=r"own tensors: del them, .*\. Or use --"):
        plan_cache(memory_plan(FACTS, plan.serving, memory))


def test_a_context_beyond_the_model_is_refused_with_both_numbers() -> None:
    with pytest.raises(HeadraceError) as caught:
        on_a_gpu(10_000, max_model_len=8193)
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


def test_a_cache_that_does_not_fit_names_the_size_that_does() -> None:
    serving = replace(SERVING, kv_cache_memory_bytes=6 * GIB)
    memory = DeviceMemory("cpu", 5 * GIB)
    with pytest.raises(HeadraceError) as caught:
        plan_cache(memory_plan(FACTS, serving, memory))
    assert caught.value.param == "kv_cache_memory_bytes"
    size = int(caught.value.fix.split()[-1])
    assert size > 4.9 * GIB
    assert isinstance(plan_cache(memory_plan(FACTS, replace(serving, kv_cache_memory_bytes=size), memory)), CachePlan)


def test_a_model_that_is_too_large_for_any_flag() -> None:
    with pytest.raises(HeadraceError) as caught:
        plan_cache(memory_plan(LLAMA, Serving(), DeviceMemory("cuda", GIB)))
    assert "The model does not fit this GPU" in caught.value.what
    assert "headrace plan llama" in caught.value.fix
