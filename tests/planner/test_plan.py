"""Plans for GPUs: lines that add up, answers that hold, and advice that works when it is followed."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import HeadraceError
from headrace.planner.catalogue import find_known
from headrace.planner.choose import Demand, choices, weighted_bytes
from headrace.planner.estimates import GRAPH_BYTES, GRAPH_LAYER_BYTES
from headrace.planner.facts import ModelFacts, facts_from_config, facts_of_known
from headrace.planner.formats import scheme_named
from headrace.planner.gpus import find_gpu, known_gpus
from headrace.planner.memory import GIB
from headrace.planner.plan import Plan, plan_on
from headrace.planner.report import Question, as_dict, report_on
from headrace.planner.roofline import decode_speed
from headrace.planner.serving import LoraSlots, Serving

SMALL = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def facts(name: str) -> ModelFacts:
    """A model of the catalogue."""
    known = find_known(name)
    assert known is not None
    return facts_of_known(known, name)


def plan(name: str, gpu: str, **serving: object) -> Plan:
    """A plan for a model of the catalogue."""
    return plan_on(facts(name), Serving(**serving), find_gpu(gpu))  # type: ignore[arg-type]


def test_the_lines_are_all_of_the_memory() -> None:
    found = plan("meta-llama/Llama-3.1-8B", "L40S", lora=LoraSlots(4, 16), draft=facts("meta-llama/Llama-3.2-1B"))
    labels = [line.label for line in found.lines]
    assert labels[:5] == ["Weights", "LoRA slots", "Draft model", "Activations", "Logits and sampling"]
    assert sum(line.nbytes for line in found.lines) + found.kv_bytes == found.allowed_bytes
    assert all(line.formula for line in found.lines)
    assert all(
        re.search(r"(estimate|fitted|measured|by construction).*\(20\d\d-\d\d-\d\d\)", line.source)
        for line in found.lines
        if line.source
    )
    estimated = {"Logits and sampling", "CUDA context", "CUDA graphs", "Fragmentation"}
    assert {line.label for line in found.lines if line.source} == estimated


def test_the_bytes_of_known_lines() -> None:
    found = plan("meta-llama/Llama-3.1-8B", "H100", lora=LoraSlots(8, 16), max_num_batched_tokens=8192)
    nbytes = {line.label: line.nbytes for line in found.lines}
    assert nbytes["Weights"] == 2 * 8_030_261_248
    assert nbytes["LoRA slots"] == pytest.approx(8 * 83.9e6, rel=0.001)
    assert nbytes["Activations"] == 8192 * (4096 * (4 + 2 * 2) + 3 * 14336 * 2)
    assert nbytes["Logits and sampling"] == 128256 * (256 * (2 + 2) + 32 * 40)
    assert nbytes["Rotary table"] == 131072 * 128 * 4


def test_graphs_only_where_they_are_captured() -> None:
    eager = plan("Qwen/Qwen3-0.6B", "T4", enforce_eager=True)
    assert "CUDA graphs" not in [line.label for line in eager.lines]
    assert eager.kv_bytes > plan("Qwen/Qwen3-0.6B", "T4").kv_bytes


def test_graphs_by_their_number_and_the_layers_in_them() -> None:
    def graphs(name: str, **serving: object) -> int:
        return next(line.nbytes for line in plan(name, "H100", **serving).lines if line.label == "CUDA graphs")

    sizes = [graphs("Qwen/Qwen3-8B", max_num_seqs=count) for count in (8, 256, 1024)]
    per_pass = int(GRAPH_BYTES.value) + 36 * int(GRAPH_LAYER_BYTES.value)
    assert sizes[1] - sizes[0] == 31 * (per_pass + int(GRAPH_BYTES.value))
    assert sizes[2] - sizes[1] == 96 * (per_pass + int(GRAPH_BYTES.value))
    assert graphs("Qwen/Qwen3-8B", max_num_batched_tokens=512) < sizes[1]


def test_a_gpu_without_fp8_keeps_no_fp8_cache() -> None:
    for name in ("T4", "A10", "A10G", "A100-80", "RTX-3090"):
        with pytest.raises(HeadraceError, match=f"kv_cache_dtype is fp8, which {name} cannot compute with"):
            plan("Qwen/Qwen3-0.6B", name, kv_cache_dtype="fp8")
    assert plan("Qwen/Qwen3-0.6B", "L4", kv_cache_dtype="fp8").fits
    found = choices(facts("Qwen/Qwen3-0.6B"), Serving(kv_cache_dtype="fp8"), Demand())
    assert found
    assert all(each.gpu.has_fp8 for each in found)


def test_bfloat16_that_was_asked_for_is_not_replaced() -> None:
    assert plan("Qwen/Qwen3-0.6B", "T4").serving.dtype == "float16"
    with pytest.raises(HeadraceError, match="dtype is bfloat16, which T4 cannot compute with"):
        plan("Qwen/Qwen3-0.6B", "T4", dtype_is_asked=True)
    asked = Serving(dtype_is_asked=True)
    assert all(each.gpu.has_bfloat16 for each in choices(facts("Qwen/Qwen3-0.6B"), asked, Demand()))
    full = report_on(Question(facts("Qwen/Qwen3-0.6B"), replace(asked, dtype="float32"), find_gpu("T4")))
    assert any(line.startswith("--dtype float16") for line in full.advice)


@pytest.mark.parametrize("block_size", [7, 0, 256])
def test_a_block_is_of_a_size_that_the_engine_has(block_size: int) -> None:
    with pytest.raises(HeadraceError, match=f"block_size is {block_size}"):
        Serving(block_size=block_size)


def test_the_arguments_make_the_same_plan() -> None:
    serving = Serving(block_size=128, max_model_len=1000, max_num_seqs=9)
    arguments = report_on(Question(facts("Qwen/Qwen3-8B"), serving, find_gpu("L4"))).arguments
    assert arguments["block_size"] == 128
    assert "block_size" not in report_on(Question(facts("Qwen/Qwen3-8B"), Serving(), find_gpu("L4"))).arguments


def test_a_draft_models_tokens_are_cached_too() -> None:
    with_draft = plan("Qwen/Qwen3-1.7B", "L4", draft=facts("Qwen/Qwen3-0.6B"))
    assert with_draft.kv_bytes_per_token == 2 * 114_688


def test_405b_in_16_bits_does_not_fit_eight_h100_and_in_fp8_does() -> None:
    """The research's check: 812 GB of weights for 8 x 80 GB; 373,000 tokens of cache in fp8."""
    model = "meta-llama/Llama-3.1-405B"
    assert not plan(model, "H100", tensor_parallel_size=8).fits
    small = {"max_num_batched_tokens": 2048, "max_num_seqs": 64, "enforce_eager": True}
    in_fp8 = plan(model, "H100", tensor_parallel_size=8, scheme=scheme_named("fp8", "bfloat16"), **small)
    assert in_fp8.cache_tokens == pytest.approx(373_000, rel=0.1)


def test_70b_on_two_a100() -> None:
    """The research's check, which has 1.6 GB for all but weights: it fits, with room for about 31,000 tokens."""
    serving = {"tensor_parallel_size": 2, "max_num_batched_tokens": 2048, "max_num_seqs": 16, "enforce_eager": True}
    found = plan("meta-llama/Meta-Llama-3-70B", "A100-80", **serving)
    assert found.cache_tokens == pytest.approx(31_000, rel=0.2)
    assert not plan("meta-llama/Meta-Llama-3-70B", "A100-80").fits


def test_a_tp_size_that_does_not_divide_the_heads_names_those_that_do() -> None:
    with pytest.raises(HeadraceError) as caught:
        plan("Qwen/Qwen2.5-7B", "L4", tensor_parallel_size=8)
    assert "28 query and 4 key-value heads" in caught.value.rule
    assert caught.value.fix == "Use one of 1, 2, 4"


def test_replicated_heads_take_more_than_their_share() -> None:
    two, four = (plan_on(facts_from_config("m", {**SMALL, "num_attention_heads": 8}, "test"),
                         Serving(tensor_parallel_size=size), find_gpu("T4")) for size in (2, 4))  # fmt: skip
    assert two.kv_bytes_per_token == four.kv_bytes_per_token
    assert four.lines[0].nbytes > two.lines[0].nbytes / 2


def test_a_t4_computes_in_float16() -> None:
    found = plan("Qwen/Qwen3-0.6B", "T4")
    assert found.serving.dtype == "float16"
    assert any("no bfloat16" in limit for limit in found.gpu.limits)
    assert not find_gpu("H100").limits


@given(
    length=st.integers(1, 8000),
    gpu=st.sampled_from(known_gpus()),
    seqs=st.integers(1, 512),
    tokens=st.integers(512, 16384),
)
def test_what_is_guaranteed_fits_and_one_more_does_not(length: int, gpu: object, seqs: int, tokens: int) -> None:
    serving = Serving(max_num_seqs=seqs, max_num_batched_tokens=tokens)
    found = plan_on(facts("Qwen/Qwen3-1.7B"), serving, gpu)  # type: ignore[arg-type]
    count = found.guaranteed(length)
    assert count * found.reserved_bytes(length) <= max(0, found.kv_bytes)
    more = found.held(length) + 1
    assert count == min(seqs, more - 1)
    assert more * found.reserved_bytes(length) > found.kv_bytes - found.block_bytes * 2 * more
    assert found.expected(length) >= count
    assert found.ideal_bytes(length) <= found.reserved_bytes(length)
    assert found.longest_context <= found.facts.outline.longest_context


def test_the_smallest_gpu_serves_what_was_asked_and_smaller_ones_do_not() -> None:
    serving = Serving(max_model_len=8192)
    found = choices(facts("Qwen/Qwen3-8B"), serving, Demand(8))
    assert all(each.guaranteed(8192) >= 8 for each in found)
    best = found[0]
    smaller = [gpu for gpu in known_gpus() if gpu.usable_gib < best.gpu.usable_gib]
    alone = [plan_on(facts("Qwen/Qwen3-8B"), replace(serving, tensor_parallel_size=1), gpu) for gpu in smaller]
    assert best.serving.tensor_parallel_size > 1 or all(each.guaranteed(8192) < 8 for each in alone)


@pytest.mark.parametrize(
    ("name", "gpu", "serving"),
    [
        ("Qwen/Qwen3-8B", "T4", {}),
        ("Qwen/Qwen3-8B", "L4", {"max_model_len": 40960}),
        ("meta-llama/Llama-3.1-70B", "H100", {"max_model_len": 8192}),
        ("meta-llama/Llama-2-13b-hf", "A100-40", {"max_model_len": 4096}),
    ],
)
def test_advice_that_is_followed_fits(name: str, gpu: str, serving: dict[str, object]) -> None:
    question = Question(facts(name), Serving(**serving), find_gpu(gpu))  # type: ignore[arg-type]
    report = report_on(question)
    followed = 0
    for sentence in report.advice:
        if found := re.match(r"--(quantization|tensor-parallel-size|max-model-len|kv-cache-dtype) (\S+)", sentence):
            changed = replace(question.serving, **change(found[1], found[2]))
            followed += 1
            assert report_on(replace(question, serving=changed)).plan.fits, sentence
    assert followed


def change(flag: str, value: str) -> dict[str, object]:
    """What a flag changes."""
    if flag == "quantization":
        return {"scheme": scheme_named(value, "bfloat16"), "max_model_len": None}
    name = flag.replace("-", "_")
    return {name: value if name == "kv_cache_dtype" else int(value)}


def test_a_model_that_fits_nothing_names_the_nearest_and_a_cure() -> None:
    question = Question(facts("meta-llama/Llama-3.1-405B"), Serving(dtype="float32", max_model_len=131072))
    report = report_on(question)
    assert not report.others and not report.plan.fits and not report.arguments
    assert "the nearest is 8 x" in report.advice[0]
    assert any(sentence.startswith("--dtype bfloat16") for sentence in report.advice)


def test_int8_would_fit_a_smaller_gpu() -> None:
    report = report_on(Question(facts("Qwen/Qwen3-8B"), Serving(max_model_len=8192)))
    assert any(re.match(r"--quantization int[48] would fit \d x ", sentence) for sentence in report.advice)


def test_the_flags_make_the_plan() -> None:
    report = report_on(Question(facts("Qwen/Qwen3-8B"), Serving(max_model_len=8192), find_gpu("L40S")))
    assert report.enough
    assert report.flags[:2] == ["--max-model-len", "8192"]
    assert "--tensor-parallel-size" not in report.flags
    assert as_dict(report)["plan"]["sequences"]["guaranteed"] == report.plan.guaranteed(8192)  # type: ignore[index]


@pytest.mark.parametrize(
    "serving",
    [
        {"max_model_len": 0},
        {"max_model_len": -5},
        {"max_model_len": 10**12},
        {"max_num_seqs": 0},
        {"tensor_parallel_size": -1},
        {"gpu_memory_utilization": 1.5},
        {"gpu_memory_utilization": 0.0},
        {"dtype": "int3"},
        {"kv_cache_dtype": "nf4"},
        {"lora": LoraSlots(2, 0)},
    ],
    ids=str,
)
def test_absurd_sizes_are_named(serving: dict[str, object]) -> None:
    with pytest.raises(HeadraceError) as caught:
        Serving(**serving)  # type: ignore[arg-type]
    assert caught.value.param
    assert caught.value.fix


@pytest.mark.parametrize("name", ["h100", "A100_80", "a100-80gb", "NVIDIA L4", "rtx 4090"])
def test_gpus_are_found_however_they_are_written(name: str) -> None:
    assert find_gpu(name).usable_bytes > 10 * GIB


def test_an_unknown_gpu_names_the_known_ones() -> None:
    with pytest.raises(HeadraceError) as caught:
        find_gpu("GTX 480")
    assert "MI300X" in caught.value.rule


def test_gpus_are_described_by_what_can_be() -> None:
    names = [gpu.name for gpu in known_gpus()]
    assert {"T4", "L4", "A10G", "L40S", "A100-40", "A100-80", "H100", "H200", "B200", "MI300X"} <= set(names)
    for gpu in known_gpus():
        assert gpu.usable_gib * 1024 <= gpu.memory_mib
        assert gpu.has_fp8 == (gpu.capability == "gfx942" or tuple(map(int, gpu.capability.split("."))) >= (8, 9))


def test_a_latency_target_needs_a_faster_gpu() -> None:
    any_latency = choices(facts("Qwen/Qwen3-8B"), Serving(max_model_len=4096), Demand(4))
    quick = choices(facts("Qwen/Qwen3-8B"), Serving(max_model_len=4096), Demand(4, itl_ms=12))
    assert quick
    assert sum(map(weighted_bytes, quick)) > sum(map(weighted_bytes, any_latency))
    for found in quick:
        assert decode_speed(found, 4, 2048).step_seconds <= 0.012
    slow = report_on(Question(facts("Qwen/Qwen3-8B"), Serving(max_model_len=4096), find_gpu("L40S"), Demand(4, 12)))
    assert not slow.enough
    assert any("ms between two tokens, not 12" in sentence for sentence in slow.advice)


@pytest.mark.parametrize("demand", [{"concurrency": 0}, {"itl_ms": 0.0}, {"ttft_ms": -3.0}, {"itl_ms": float("nan")}])
def test_absurd_demands_are_named(demand: dict[str, float]) -> None:
    with pytest.raises(HeadraceError):
        Demand(**demand)  # type: ignore[arg-type]


def test_a_context_beyond_the_model_is_refused() -> None:
    with pytest.raises(HeadraceError) as caught:
        plan("Qwen/Qwen3-8B", "H200", max_model_len=1_000_000)
    assert "40960" in caught.value.rule
