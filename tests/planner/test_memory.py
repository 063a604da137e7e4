"""What a model takes, against transformers' own count of parameters."""

from dataclasses import replace

import pytest
import torch
import transformers

from headrace.planner.device_memory import DeviceMemory
from headrace.planner.facts import ModelFacts
from headrace.planner.formats import scheme_named
from headrace.planner.hf_config import shape_from_config
from headrace.planner.lines import fixed_lines
from headrace.planner.memory import GIB, cpu_kv_budget, kv_bytes_per_token, rotary_bytes, scheme_bytes
from headrace.planner.outline.from_config import outline_from_config
from headrace.planner.outline.from_shape import outline_of
from headrace.planner.serving import Serving

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
    facts = ModelFacts("small", outline_of(shape), "a test")
    assert facts.weight_bytes(None, "float32")[0] == 4 * num_parameters
    assert facts.weight_bytes(None, "bfloat16")[0] == facts.weight_bytes(None, "float16")[0] == 2 * num_parameters
    table = 1000 * 64 * 2 if tied else 0
    assert facts.weight_bytes(None, "bfloat16", on_cpu=True)[0] == 2 * num_parameters + table


def test_quantized_weights_are_smaller_where_the_layers_are_most_of_it() -> None:
    outline = outline_of(replace(shape_from_config({**CONFIG, "model_type": "llama"}), vocab_size=50))
    forms = (("none", "float32"), ("none", "bfloat16"), ("int8", "bfloat16"), ("int4", "bfloat16"))
    sizes = [scheme_bytes(outline, scheme_named(name, dtype)) for name, dtype in forms]
    assert sizes == sorted(sizes, reverse=True)
    linear = sum(matrix.elements for matrix in outline.matrices if matrix.role == "linear")
    assert sizes[-1] > linear * 6 / 8


def test_keys_and_values_of_a_token() -> None:
    outline = outline_of(shape_from_config({**CONFIG, "model_type": "llama"}))
    assert kv_bytes_per_token(outline, dtype_bytes=2) == 3 * 2 * 2 * 32 * 2
    assert rotary_bytes(outline, 10) == 10 * 32 * 4


def test_a_position_that_is_learned_needs_no_rotary_table() -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000}
    assert rotary_bytes(outline_from_config(config), 1000) == 0


def test_activations_or_logits_whichever_is_more_on_a_cpu() -> None:
    facts = ModelFacts("small", outline_of(shape_from_config({**CONFIG, "model_type": "llama"})), "a test")

    def step(tokens: int, rows: int) -> tuple[str, int]:
        serving = Serving(max_num_batched_tokens=tokens, max_num_seqs=rows)
        line = fixed_lines(facts, serving, DeviceMemory("cpu", GIB))[1]
        return line.label, line.nbytes

    assert step(1000, 1) == ("Activations", 1000 * (64 * 8 + 3 * 160 * 2))
    assert step(100, 70) == ("Logits and sampling", 4 * 70 * 1000 * 4 + 100 * 64 * 2)


def test_a_gpu_multiplies_by_floats_that_it_makes_of_small_weights() -> None:
    facts = ModelFacts("small", outline_of(shape_from_config({**CONFIG, "model_type": "llama"})), "a test")
    for name, nbytes in (("int8", 4 * 64 * 1000), ("int4", 2 * 64 * 160 * 8)):
        serving = Serving(scheme=scheme_named(name, "bfloat16"))
        found = {line.label: line.nbytes for line in fixed_lines(facts, serving, DeviceMemory("cuda", GIB))}
        assert found["Unpacked weights"] == max(nbytes, 4 * 64 * 1000)


@pytest.mark.parametrize(("free_gib", "budget_gib"), [(1, 0.25), (16, 4), (400, 4)])
def test_cpu_kv_budget(free_gib: float, budget_gib: float) -> None:
    assert cpu_kv_budget(int(free_gib * GIB)) == budget_gib * GIB
