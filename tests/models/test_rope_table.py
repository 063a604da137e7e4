"""Rotary tables against transformers' own frequencies, for every kind of scaling."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from headrace.models.rope import cos_sin_table
from headrace.planner.shape import ModelShape, RopeScaling

CPU = torch.device("cpu")
CONTEXT = 64

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
SCALINGS = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn, betas": YARN | {"beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
    "yarn, mscale": YARN | {"mscale": 0.707, "mscale_all_dim": 0.5},
    "yarn, attention factor": YARN | {"attention_factor": 1.25},
}


def shape_with(kind: str, parameters: dict[str, float]) -> ModelShape:
    return ModelShape(
        architecture="LlamaForCausalLM",
        vocab_size=32,
        hidden_size=64,
        intermediate_size=64,
        num_layers=1,
        num_heads=2,
        num_kv_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
        rope_scaling=RopeScaling(kind=kind, **parameters),
    )


def config_with(kind: str, parameters: dict[str, float]) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": kind, "rope_theta": 10_000.0, **parameters},
    )


@pytest.mark.parametrize("name", SCALINGS)
def test_table_equals_transformers(name: str) -> None:
    kind = name.split(",")[0]
    table = cos_sin_table(shape_with(kind, SCALINGS[name]), CONTEXT, CPU)
    rotary = LlamaRotaryEmbedding(config_with(kind, SCALINGS[name]))
    cos, sin = rotary(torch.zeros(1), torch.arange(CONTEXT)[None])
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, torch.cat((cos[0, :, :16], sin[0, :, :16]), dim=-1), rtol=0, atol=1e-6)


def test_dynamic_beyond_the_context_equals_transformers_token_by_token() -> None:
    table = cos_sin_table(shape_with("dynamic", {"factor": 2.0}), 3 * CONTEXT, CPU)
    rotary = LlamaRotaryEmbedding(config_with("dynamic", {"factor": 2.0}))
    for position in range(CONTEXT - 2, 3 * CONTEXT):
        cos, sin = rotary(torch.zeros(1), torch.tensor([[position]]))
        torch.testing.assert_close(table[position, :16], cos[0, 0, :16], rtol=0, atol=1e-4)
        torch.testing.assert_close(table[position, 16:], sin[0, 0, :16], rtol=0, atol=1e-4)


def test_dynamic_frequencies_are_those_of_each_length() -> None:
    """At the position that a frequency turns once, angles are exact enough to compare frequencies to 1e-6."""
    config, length = config_with("dynamic", {"factor": 2.0}), 2 * CONTEXT
    frequencies, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, CPU, seq_len=length)
    table = cos_sin_table(shape_with("dynamic", {"factor": 2.0}), length, CPU)
    slow = frequencies * (length - 1) < 1.5
    torch.testing.assert_close(
        table[length - 1, 16:].asin()[slow] / (length - 1), frequencies[slow], rtol=1e-6, atol=1e-8
    )
