"""Parameter counts by formula, against transformers' own modules and against the worked table of published models."""

import pytest
import torch
import transformers

from headrace.planner.catalogue import KnownModel, find_known, known_models
from headrace.planner.memory import kv_bytes_per_token
from headrace.planner.outline.from_config import outline_from_config

PLAIN: dict[str, object] = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
GROUPED = {**PLAIN, "num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 24}
SPARSE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
LATENT = {"kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12}
STATES = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
OLD = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "vocab_size": 1000}
SHARED = {"shared_expert_intermediate_size": 48}

CASES: list[tuple[str, dict[str, object]]] = [
    ("llama", {**HEADS, "attention_bias": True, "mlp_bias": True}),
    ("llama", {**GROUPED, "tie_word_embeddings": True}),
    ("mistral", GROUPED),
    ("mixtral", {**GROUPED, **LOCAL}),
    ("qwen2", GROUPED),
    ("qwen2_moe", {**GROUPED, **SPARSE, **SHARED, "mlp_only_layers": [1]}),
    ("qwen3", HEADS),
    ("qwen3_moe", {**HEADS, **SPARSE, "decoder_sparse_step": 2}),
    ("qwen3_next", {**HEADS, **SPARSE, **SHARED, **STATES}),
    ("gemma", HEADS),
    ("gemma2", HEADS),
    ("gemma3_text", HEADS),
    ("phi", PLAIN),
    ("phi", {**PLAIN, "qk_layernorm": True}),
    ("phi3", {**GROUPED, "pad_token_id": 0}),
    ("phimoe", {**GROUPED, **LOCAL, "lm_head_bias": True, "attention_bias": True}),
    ("cohere", {**GROUPED, "use_qk_norm": True}),
    ("cohere2", GROUPED),
    ("olmo", GROUPED),
    ("olmo2", GROUPED),
    ("olmo3", GROUPED),
    ("olmoe", {**GROUPED, "num_experts": 8, "num_experts_per_tok": 2}),
    ("granite", {**GROUPED, "mlp_bias": True}),
    ("granitemoe", {**GROUPED, **LOCAL}),
    ("glm", {**HEADS, "pad_token_id": 0}),
    ("glm4", {**HEADS, "pad_token_id": 0, "attention_bias": False}),
    ("glm4_moe", {**HEADS, **ROUTED, "use_qk_norm": True, "attention_bias": True}),
    ("smollm3", {**GROUPED, "pad_token_id": 0}),
    ("exaone4", GROUPED),
    ("seed_oss", {**HEADS, "attention_bias": True}),
    ("ernie4_5", HEADS),
    ("ernie4_5_moe", {**GROUPED, "moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 32}),
    ("stablelm", {**GROUPED, "use_qkv_bias": True}),
    ("stablelm", {**GROUPED, "qk_layernorm": True, "use_parallel_residual": True}),
    ("starcoder2", GROUPED),
    ("nemotron", HEADS),
    ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000}),
    ("gpt_neox", PLAIN),
    ("opt", {**OLD, "ffn_dim": 160, "word_embed_proj_dim": 64}),
    ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000}),
    ("falcon", OLD),
    ("falcon", {**OLD, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("deepseek_v2", {**PLAIN, **ROUTED, **LATENT, "q_lora_rank": None}),
    ("deepseek_v3", {**PLAIN, **ROUTED, **LATENT, "q_lora_rank": 20, "n_group": 2, "topk_group": 1}),
    ("gpt_oss", {**HEADS, **LOCAL}),
    ("llama4_text", {**HEADS, **LOCAL, "intermediate_size_mlp": 200, "interleave_moe_layer_step": 2}),
]


@pytest.mark.parametrize(("model_type", "fields"), CASES, ids=[model_type for model_type, _ in CASES])
def test_as_many_as_transformers_makes(model_type: str, fields: dict[str, object]) -> None:
    """Counted from the fields as a repository has them, and from all that transformers writes."""
    config = transformers.AutoConfig.for_model(model_type, **fields)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    for described in ({"model_type": model_type, **fields}, config.to_dict()):
        outline = outline_from_config(described)
        assert outline.parameters == num_parameters
        assert outline.notes == ()


WORKED = [
    ("Qwen/Qwen3-0.6B", 596_049_920, 114_688),
    ("Qwen/Qwen2.5-0.5B", 494_032_768, 12_288),
    ("Qwen/Qwen2.5-1.5B", 1_543_714_304, 28_672),
    ("Qwen/Qwen2.5-7B", 7_615_616_512, 57_344),
    ("meta-llama/Llama-2-7b-hf", 6_738_415_616, 524_288),
    ("meta-llama/Llama-2-13b-hf", 13_015_864_320, 819_200),
    ("meta-llama/Meta-Llama-3-8B", 8_030_261_248, 131_072),
    ("meta-llama/Meta-Llama-3-70B", 70_553_706_496, 327_680),
    ("meta-llama/Llama-3.1-405B", 405_853_388_800, 516_096),
]
"""The research's table: parameters, and bytes of 16-bit keys and values a token."""


@pytest.mark.parametrize(("name", "parameters", "kv_bytes"), WORKED)
def test_the_worked_table(name: str, parameters: int, kv_bytes: int) -> None:
    known = find_known(name)
    assert known is not None
    outline = outline_from_config(known.config)
    assert outline.parameters == parameters
    assert kv_bytes_per_token(outline, 2) == kv_bytes


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.name)
def test_the_catalogue_has_the_published_counts(model: KnownModel) -> None:
    assert outline_from_config(model.config).parameters + model.buffers == model.parameters


def test_the_catalogue_is_large_and_names_are_found_once_in_any_case() -> None:
    models = known_models()
    assert len(models) >= 40
    names = [name.lower() for model in models for name in (model.name, *model.aliases)]
    assert len(names) == len(set(names))
    found = find_known("META-LLAMA/llama-3.1-70b")
    assert found is not None
    assert found.name == "meta-llama/Llama-3.1-70B"
    assert find_known("nobody/nothing") is None
