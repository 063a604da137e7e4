"""What the planner says an engine takes, against the tensors that it really allocates on a CPU."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from live_bytes import LiveBytes

from headrace.core.config import EngineConfig
from headrace.core.sampling_params import SamplingParams
from headrace.engine.build import find_files, load_engine
from headrace.engine.engine import Engine
from headrace.engine.plan import plan_engine
from headrace.kernels.cpu_native import arena
from headrace.kernels.select import select_ops
from headrace.models.load import load_model
from headrace.wire.messages import AddRequest

SIZES = {
    "vocab_size": 4000,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
MODELS: dict[str, dict[str, object]] = {
    "qwen3, tied": {"model_type": "qwen3", "head_dim": 64, "tie_word_embeddings": True},
    "llama, untied, biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen2, MHA, wide heads": {"model_type": "qwen2", "num_key_value_heads": 8, "num_attention_heads": 8},
}
BUDGETS = {"prefill": (512, 256, 8), "decode": (64, 32, 32)}
"""max_model_len, max_num_batched_tokens and max_num_seqs: steps in which activations, or logits, are most of it."""


@dataclass(frozen=True)
class Measured:
    """Bytes that were planned, and bytes that were there."""

    weights: tuple[int, int]
    total: tuple[int, int]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of one family."""
    folder = tmp_path_factory.mktemp("model")
    config = transformers.AutoConfig.for_model(**(SIZES | MODELS[request.param]))
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed weights lie in pieces of 32 MiB, more than these models have: smaller ones show what they take."""
    monkeypatch.setattr(arena, "_CHUNK_BYTES", 1 << 12)
    monkeypatch.setattr(arena, "_HUGE_PAGE_BYTES", 1 << 12)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(
    ("dtype", "quantization"), [("float32", "none"), ("bfloat16", "none"), ("bfloat16", "int8"), ("bfloat16", "int4")]
)
def test_the_plan_is_what_is_allocated(model: Path, dtype: str, quantization: str, budget: str) -> None:
    length, tokens, sequences = BUDGETS[budget]
    measured = measure(
        EngineConfig.from_kwargs(
            model=str(model), dtype=dtype, quantization=quantization, max_model_len=length, device="cpu",
            block_size=16, max_num_batched_tokens=tokens, max_num_seqs=sequences, kv_cache_memory_bytes=4 << 20,
        )
    )  # fmt: skip
    planned, there = measured.weights
    assert planned == pytest.approx(there, rel=0.03)
    planned, there = measured.total
    assert planned == pytest.approx(there, rel=0.10)


def measure(config: EngineConfig) -> Measured:
    """Plan, load and run an engine through full steps."""
    plan = plan_engine(config, find_files(config))
    limits, lines = plan.limits, {line.label: line.nbytes for line in plan.memory.lines}
    weights = lines["Weights"] + lines["Rotary table"]
    cache = plan.cache.num_blocks * plan.memory.block_bytes
    with LiveBytes() as live:
        loaded = load_engine(config, with_tokenizer=False)
        gc.collect()
        at_rest, live.peak = live.now, live.now
        run_full_steps(loaded.engine, limits.max_num_batched_tokens, limits.max_num_seqs, plan.shape.vocab_size)
    loaded.close()
    return Measured((weights, at_rest - cache), (plan.memory.fixed_bytes + cache, live.peak))


def run_full_steps(engine: Engine, num_tokens: int, num_sequences: int, vocab_size: int) -> None:
    """Prompts that fill one step to the last token, then a few steps of sampling from the whole vocabulary."""
    for uid, prompt in enumerate(prompts(num_tokens, num_sequences, vocab_size)):
        engine.add(AddRequest([uid], prompt, SamplingParams(temperature=1.0, max_tokens=3, ignore_eos=True)))
    while engine.has_work:
        engine.step()


def prompts(num_tokens: int, num_sequences: int, vocab_size: int) -> Iterator[list[int]]:
    """Random tokens in equal parts."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_sequences):
        yield torch.randint(0, vocab_size, (num_tokens // num_sequences,), generator=generator).tolist()


@pytest.mark.parametrize("quantization", ["auto", "none", "int8", "int4"])
def test_a_gguf_is_planned_type_by_type(smollm2_gguf: Path, quantization: str) -> None:
    """Against what the loaded layers say that they hold; auto keeps the file's 4-bit groups."""
    device, dtype = torch.device("cpu"), torch.bfloat16
    config = EngineConfig.from_kwargs(model=str(smollm2_gguf), quantization=quantization, max_model_len=64)
    plan = plan_engine(config, find_files(config))
    model = load_model(
        plan.files, plan.shape, select_ops(device, dtype), dtype=dtype, quantization=config.quantization, device=device,
        max_model_len=64,
    )  # fmt: skip
    lines = {line.label: line.nbytes for line in plan.memory.lines}
    assert lines["Weights"] + lines["Rotary table"] == pytest.approx(model.nbytes, rel=0.03)
