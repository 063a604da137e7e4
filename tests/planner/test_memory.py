"""What a model takes, against transformers' own count of parameters."""

from dataclasses import replace

import pytest
import torch
import transformers

from headrace.planner.hf_config import shape_from_config
from headrace.planner.memory import (
    GIB,
    activation_bytes,
    cpu_kv_budget,
    kv_block_bytes,
    weight_bytes,
)
from headrace.planner.outline.from_shape import outline_of

CONFIG = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_float_weights_are_the_parameters(family: str, tied: bool, bias: bool) -> None:
    fields = {**CONFIG, "model_type": family, "tie_word_embeddings": tied, "attention_bias": bias, "mlp_bias": bias}
    shape = shape_from_config(fields)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**fields))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert weight_bytes(shape, "float32") == 4 * num_parameters
    assert weight_bytes(shape, "bfloat16") == weight_bytes(shape, "float16") == 2 * num_parameters


def test_quantized_weights_are_smaller_where_the_layers_are_most_of_it() -> None:
    shape = replace(shape_from_config({**CONFIG, "model_type": "llama"}), vocab_size=50)
    sizes = [weight_bytes(shape, form) for form in ("float32", "bfloat16", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
    linear = sum(matrix.elements for matrix in outline_of(shape).matrices if matrix.role == "linear")
    assert weight_bytes(shape, "int4") > linear * 6 / 8


def test_kv_blocks() -> None:
    shape = shape_from_config({**CONFIG, "model_type": "llama"})
    assert kv_block_bytes(shape, block_size=16, dtype_bytes=2) == 3 * 2 * 2 * 32 * 16 * 2


def test_activations_or_logits_whichever_is_more() -> None:
    shape = shape_from_config({**CONFIG, "model_type": "llama"})
    one = activation_bytes(shape, 1, 0, 2)
    assert one == 64 * 4 + (2 * 64 + 3 * 160) * 2
    assert activation_bytes(shape, 100, 1, 2) == 100 * one
    assert activation_bytes(shape, 100, 70, 2) == 4 * 70 * 1000 * 4 + 100 * 64 * 2


@pytest.mark.parametrize(("free_gib", "budget_gib"), [(1, 0.25), (16, 4), (400, 4)])
def test_cpu_kv_budget(free_gib: float, budget_gib: float) -> None:
    assert cpu_kv_budget(int(free_gib * GIB)) == budget_gib * GIB
