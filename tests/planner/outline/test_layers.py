"""What each layer is, and what it keeps: windows, latents, states, experts; and one reading for both descriptions."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import HeadraceError
from headrace.core.gguf_header import read_header
from headrace.planner.catalogue import find_known, known_models
from headrace.planner.formats import scheme_named
from headrace.planner.gguf_config import shape_from_gguf
from headrace.planner.hf_config import shape_from_config
from headrace.planner.memory import ideal_kv_bytes, kv_bytes_per_token, state_bytes
from headrace.planner.outline.from_config import outline_from_config
from headrace.planner.outline.from_gguf import outline_from_gguf
from headrace.planner.outline.from_shape import outline_of
from headrace.planner.outline.mixers import Attention, DeltaNet, LatentAttention
from headrace.planner.outline.model import ModelOutline

SMALL: dict[str, object] = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def outline(model_type: str, **fields: object) -> ModelOutline:
    """The outline of a small model."""
    return outline_from_config({**SMALL, "model_type": model_type, **fields})


def known(name: str) -> ModelOutline:
    """The outline of a model of the catalogue."""
    model = find_known(name)
    assert model is not None
    return outline_from_config(model.config)


def windows(model: ModelOutline) -> list[int | None]:
    """The window of each layer."""
    return [mixer.window for mixer in model.attention_layers]


@pytest.mark.parametrize("name", [model.name for model in known_models()])
def test_the_engines_shape_says_the_same_as_the_outline(name: str) -> None:
    """The strict reading is the wide one's special case: of a served model they agree in everything."""
    model = find_known(name)
    assert model is not None
    try:
        strict = outline_of(shape_from_config(model.config))
    except HeadraceError:
        assert model.config["model_type"] not in ("llama", "mistral", "qwen2", "qwen3")
        return
    wide = outline_from_config(model.config)
    assert strict.layers == wide.layers
    assert strict.matrices == wide.matrices
    assert (strict.longest_context, strict.dtype) == (wide.longest_context, wide.dtype)


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text", "cohere2", "gpt_oss", "olmo3", "exaone4", "mistral"])
@pytest.mark.parametrize("written_out", [False, True])
def test_windows_are_those_of_transformers(model_type: str, written_out: bool) -> None:
    fields = {**SMALL, "sliding_window": 16, "num_hidden_layers": 13}
    config = transformers.AutoConfig.for_model(model_type, **fields)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * 13
    expected = [16 if kind == "sliding_attention" else None for kind in kinds]
    described = json.loads(json.dumps(config.to_dict())) if written_out else {"model_type": model_type, **fields}
    assert windows(outline_from_config(described)) == expected


def test_latent_attention_keeps_one_latent_for_all_heads() -> None:
    """DeepSeek-V3's published 70,272 bytes a token, where keys and values of all heads would take 4 MB."""
    model = known("deepseek-ai/DeepSeek-V3")
    assert all(isinstance(layer.mixer, LatentAttention) for layer in model.layers)
    assert kv_bytes_per_token(model, 2) == 61 * 576 * 2 == 70_272
    assert kv_bytes_per_token(model, 2, num_shards=8) == 70_272


def test_linear_layers_keep_a_state_and_no_tokens() -> None:
    model = known("Qwen/Qwen3-Next-80B-A3B-Instruct")
    kinds = [type(layer.mixer) for layer in model.layers]
    assert kinds[:4] == [DeltaNet, DeltaNet, DeltaNet, Attention]
    assert kinds.count(Attention) == 12
    assert kv_bytes_per_token(model, 2) == 12 * 2 * 2 * 256 * 2
    convolution, state = (2 * 16 * 128 + 32 * 128) * 3 * 2, 32 * 128 * 128 * 4
    assert state_bytes(model, 2) == 36 * (convolution + state)


@given(num_tokens=st.integers(1, 100_000))
def test_a_window_bounds_what_a_sequence_must_keep(num_tokens: int) -> None:
    model = known("google/gemma-3-1b-it")
    token = 2 * 1 * 256 * 2
    expected = 22 * min(num_tokens, 512) * token + 4 * num_tokens * token
    assert ideal_kv_bytes(model, num_tokens, 2) == expected
    assert ideal_kv_bytes(model, num_tokens, 2) <= num_tokens * kv_bytes_per_token(model, 2)


def test_key_value_heads_are_replicated_where_they_are_too_few() -> None:
    model = outline("llama", num_attention_heads=16)
    whole = kv_bytes_per_token(model, 2)
    assert [kv_bytes_per_token(model, 2, size) for size in (1, 2, 4, 8)] == [whole, whole // 2, whole // 2, whole // 2]


def test_one_token_uses_few_experts() -> None:
    model = known("mistralai/Mixtral-8x7B-v0.1")
    assert model.active_parameters == pytest.approx(12.75e9, rel=0.01)
    assert model.num_experts == 8
    assert outline("llama").num_experts == 0


def test_an_unknown_type_is_a_generic_decoder_and_says_so() -> None:
    unknown, llama = outline("frobnicator"), outline("llama")
    assert unknown.parameters == llama.parameters
    assert "'frobnicator' is not known" in unknown.notes[0]
    assert llama.notes == ()


def test_an_unknown_type_is_read_by_its_fields() -> None:
    fields = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "sliding_window": 128}
    kinds = ["sliding_attention", "full_attention"] * 4
    unknown = outline("frobnicator", **fields, layer_types=kinds)
    assert unknown.num_experts == 4
    assert windows(unknown) == [128, None] * 4


def test_a_multi_modal_config_is_its_language_model() -> None:
    model = known("google/gemma-3-4b-it")
    assert model.model_type == "gemma3_text"
    assert "vision" in model.notes[0]


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, 16384),
        ({"rope_type": "linear", "factor": 2.0}, 8192),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024}, 4096),
        ({"rope_type": "longrope", "long_factor": [1.0]}, 4096),
        (None, 4096),
    ],
    ids=str,
)
def test_the_longest_context(scaling: object, longest: int) -> None:
    assert outline("llama", rope_scaling=scaling).longest_context == longest


def test_gemma_3_counts_its_stretched_context_already() -> None:
    fields = {"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert outline("gemma3_text", **fields).longest_context == 131072
    assert outline("llama", **fields).longest_context == 8 * 131072


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"vocab_size": None, "num_attention_heads": None}, "vocab_size, num_attention_heads"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_hidden_layers": -3}, "-3"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "3 key-value heads"),
        ({"num_experts": 8}, "num_experts_per_tok"),
        ({"kv_lora_rank": 16}, "qk_nope_head_dim, qk_rope_head_dim, v_head_dim"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["mamba"] * 8}, "layer_types"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"num_experts": 4, "num_experts_per_tok": 1, "mlp_only_layers": "none"}, "mlp_only_layers"),
        ({"sliding_window": "wide"}, "'wide'"),
    ],
    ids=str,
)
def test_bad_fields_are_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        outline("frobnicator", **fields)
    assert named in caught.value.what
    assert caught.value.fix


def test_experts_under_the_name_of_a_served_family_are_refused_by_the_engine() -> None:
    config = {**SMALL, "model_type": "llama", "num_local_experts": 4, "num_experts_per_tok": 2}
    with pytest.raises(HeadraceError, match="experts"):
        shape_from_config(config)
    assert outline_from_config(config).num_experts == 4


def test_the_embedded_gguf(smollm2_gguf: Path) -> None:
    header = read_header(smollm2_gguf)
    wide, strict = outline_from_gguf(header), outline_of(shape_from_gguf(header))
    assert wide.matrices == strict.matrices
    assert wide.parameters == 134_515_008
    linears = sum(tensor.nbytes for tensor in header.tensors.values() if tensor.type.name == "Q4_1")
    scheme = scheme_named("q4_1", "bfloat16")
    assert sum(scheme.nbytes(matrix) for matrix in wide.matrices if matrix.role == "linear") == linears


def gguf_outline(path: Path, arch: str, metadata: dict[str, int], heads: list[int] | None = None) -> ModelOutline:
    """The outline of a GGUF file of a small model."""
    out = gguf.GGUFWriter(path, arch)
    sizes = {"block_count": 6, "context_length": 4096, "embedding_length": 32, "feed_forward_length": 64}
    for key, value in (sizes | {"attention.head_count": 4} | metadata).items():
        out.add_uint32(f"{arch}.{key}", value)
    if heads is not None:
        out.add_array(f"{arch}.attention.head_count_kv", heads)
    out.add_tensor("token_embd.weight", np.zeros((48, 32), np.float16))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return outline_from_gguf(read_header(path))


def test_a_gguf_of_a_family_that_is_not_served(tmp_path: Path) -> None:
    metadata = {"attention.key_length": 16, "attention.sliding_window": 512, "attention.head_count_kv": 2}
    model = gguf_outline(tmp_path / "m.gguf", "gemma3", metadata)
    assert windows(model) == [512] * 5 + [None]
    assert (model.vocab_size, model.tie_word_embeddings, model.notes) == (48, True, ())


def test_a_gguf_with_experts(tmp_path: Path) -> None:
    metadata = {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 16}
    model = gguf_outline(tmp_path / "m.gguf", "qwen3moe", metadata, heads=[2] * 6)
    assert model.num_experts == 8
    assert kv_bytes_per_token(model, 2) == 6 * 2 * 2 * 8 * 2


def test_a_gguf_whose_layers_differ_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match="differs from layer to layer"):
        gguf_outline(tmp_path / "m.gguf", "openelm", {}, heads=[1, 2, 2, 2, 2, 2])
