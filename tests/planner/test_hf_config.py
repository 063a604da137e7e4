"""Shapes out of config.json, against transformers' own configuration classes."""

import json
from pathlib import Path

import pytest
import transformers

from headrace.core.errors import HeadraceError
from headrace.planner.hf_config import shape_from_config
from headrace.planner.shape import ModelShape, RopeScaling

CLASSES = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
}
SMALL = {
    "vocab_size": 100,
    "hidden_size": 256,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
}
VARIANTS: list[dict[str, object]] = [
    {},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": None},
    {"head_dim": 24},
    {"tie_word_embeddings": True, "rms_norm_eps": 1e-5, "max_position_embeddings": 512},
    {"rope_theta": 500000.0},
    {"rope_theta": 5000, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 3e5}},
    {"attention_bias": True, "mlp_bias": True},
    {"sliding_window": None},
    {"sliding_window": 128},
    {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2},
    {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0},
    {"use_sliding_window": False, "sliding_window": 64, "max_window_layers": 2},
    {"eos_token_id": [5, 6], "bos_token_id": 4},
    {"eos_token_id": None, "bos_token_id": None},
]


def config_of(family: str, **fields: object) -> dict[str, object]:
    """A config.json as a hub repository would have it."""
    return {"model_type": family, "architectures": [_architecture(family)], **SMALL, **fields}


def _architecture(family: str) -> str:
    return f"{family.capitalize()}ForCausalLM"


def refused(config: dict[str, object]) -> HeadraceError:
    """The error for a config that must be refused."""
    with pytest.raises(HeadraceError) as caught:
        shape_from_config(config)
    assert caught.value.fix
    return caught.value


def expected_biases(family: str, theirs: transformers.PretrainedConfig) -> tuple[bool, bool, bool, bool]:
    """Which parameters transformers' own module of one layer has: QKV bias, output bias, MLP bias, QK norm."""
    import torch

    one_layer = type(theirs).from_dict(theirs.to_dict() | {"num_hidden_layers": 1, "layer_types": None})
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(one_layer)
    names = {name.removeprefix("model.layers.0.") for name, _ in model.named_parameters()}
    wanted = ("self_attn.q_proj.bias", "self_attn.o_proj.bias", "mlp.up_proj.bias", "self_attn.q_norm.weight")
    return tuple(name in names for name in wanted)  # type: ignore[return-value]


CASES = [
    (family, fields)
    for family in CLASSES
    for fields in VARIANTS
    if (family, fields) != ("mistral", {"num_key_value_heads": None})  # MistralConfig does not take it
]


@pytest.mark.parametrize(("family", "fields"), CASES, ids=str)
def test_agrees_with_transformers(family: str, fields: dict[str, object]) -> None:
    shape = shape_from_config(config_of(family, **fields))
    theirs = CLASSES[family](**json.loads(json.dumps(SMALL | fields)))
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert (shape.num_kv_heads, shape.head_dim) == (theirs.num_key_value_heads, head_dim)
    assert shape.max_position_embeddings == theirs.max_position_embeddings
    assert shape.rms_norm_eps == theirs.rms_norm_eps
    assert shape.tie_word_embeddings == theirs.tie_word_embeddings
    assert shape.rope_theta == theirs.rope_parameters["rope_theta"]
    assert shape.rope_scaling.kind == theirs.rope_parameters["rope_type"]
    assert shape.rope_scaling.factor == theirs.rope_parameters.get("factor", 1.0)
    eos = theirs.eos_token_id
    assert shape.eos_token_ids == (() if eos is None else tuple(eos) if isinstance(eos, list) else (eos,))
    assert shape.bos_token_id == theirs.bos_token_id
    assert [shape.window(layer) for layer in range(4)] == their_windows(theirs)


def their_windows(theirs: transformers.PretrainedConfig) -> list[int | None]:
    """What transformers' attention layers use; Llama's never look at a window."""
    if theirs.model_type == "llama":
        return [None] * 4
    window = getattr(theirs, "sliding_window", None)
    kinds = getattr(theirs, "layer_types", None) or ["sliding_attention"] * 4
    return [window if kind == "sliding_attention" else None for kind in kinds]


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("bias", [False, True])
def test_biases_and_norms_are_those_of_transformers(family: str, bias: bool) -> None:
    fields = {"attention_bias": bias, "mlp_bias": bias}
    shape = shape_from_config(config_of(family, **fields))
    theirs = CLASSES[family](**SMALL, **fields)
    assert (shape.qkv_bias, shape.output_bias, shape.mlp_bias, shape.qk_norm) == expected_biases(family, theirs)


@pytest.mark.parametrize("family", CLASSES)
def test_reads_what_transformers_5_writes(family: str, tmp_path: Path) -> None:
    theirs = CLASSES[family](**SMALL, dtype="float16", architectures=[_architecture(family)])
    theirs.save_pretrained(tmp_path)
    shape = shape_from_config(json.loads((tmp_path / "config.json").read_text()))
    assert shape == shape_from_config(config_of(family, torch_dtype="float16"))


def test_an_architecture_may_be_told_by_its_model_type() -> None:
    config = config_of("qwen2")
    del config["architectures"]
    assert shape_from_config(config) == shape_from_config(config_of("qwen2"))


ROPES: list[tuple[dict[str, object], RopeScaling]] = [
    ({"type": "dynamic", "factor": 4.0}, RopeScaling("dynamic", 4.0, 512)),
    (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        RopeScaling("llama3", 8.0, 128, low_freq_factor=1.0, high_freq_factor=4.0),
    ),
    (
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "beta_fast": 16,
            "truncate": False,
        },
        RopeScaling("yarn", 4.0, 128, beta_fast=16.0, truncate=False),
    ),
    (
        {"type": "yarn", "factor": 2.0, "attention_factor": 1.2, "mscale": 0.7, "mscale_all_dim": 0.5},
        RopeScaling("yarn", 2.0, 512, attention_factor=1.2, mscale=0.7, mscale_all_dim=0.5),
    ),
    ({"rope_type": "yarn", "original_max_position_embeddings": 128}, RopeScaling("yarn", 4.0, 128)),
]


@pytest.mark.parametrize(("rope", "expected"), ROPES, ids=[str(rope["factor"]) for rope, _ in ROPES[:-1]] + ["ratio"])
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_rope_scalings(rope: dict[str, object], expected: RopeScaling, spelling: str) -> None:
    config = config_of("llama", max_position_embeddings=512, rope_theta=7e4)
    if spelling == "rope_parameters":
        rope = rope | {"rope_theta": config.pop("rope_theta")}
    shape = shape_from_config(config | {spelling: rope})
    assert (shape.rope_theta, shape.rope_scaling) == (7e4, expected)


def test_the_trained_context_may_stand_outside_of_the_rope_parameters() -> None:
    rope = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
    shape = shape_from_config(config_of("qwen2", rope_scaling=rope, original_max_position_embeddings=128))
    assert shape.rope_scaling.original_max_position_embeddings == 128


def test_layer_types_lay_out_the_windows() -> None:
    kinds = ["full_attention", "sliding_attention"] * 2
    shape = shape_from_config(config_of("qwen3", use_sliding_window=True, sliding_window=8, layer_types=kinds))
    assert shape.sliding_windows == (None, 8, None, 8)


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": "torch.bfloat16"}, "bfloat16"),
        ({"dtype": "float32", "torch_dtype": "float16"}, "float32"),
        ({}, "float32"),
    ],
)
def test_dtypes(fields: dict[str, object], dtype: str) -> None:
    assert shape_from_config(config_of("llama", **fields)).dtype == dtype


def test_an_unsupported_architecture_names_those_that_are() -> None:
    error = refused(config_of("llama", architectures=["MambaForCausalLM"]))
    assert "MambaForCausalLM" in error.what
    for family in CLASSES:
        assert _architecture(family) in error.rule
    assert "gpt2" in refused({"model_type": "gpt2"}).what


def test_missing_fields_are_all_named() -> None:
    config = config_of("llama")
    del config["hidden_size"], config["vocab_size"]
    assert refused(config).what == "config.json has no vocab_size, hidden_size"
    assert "architectures" in refused({}).what


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "'longrope'"),
        ({"rope_scaling": {"type": "mrope"}}, "'mrope'"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor, high_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 4}}, "low"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "rope_parameters"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
        ({"num_key_value_heads": 5}, "5 key-value heads"),
        ({"head_dim": 7}, "7 elements"),
        ({"hidden_size": 250}, "hidden_size"),
        ({"hidden_size": -1}, "-1"),
        ({"hidden_size": "256"}, "'256'"),
        ({"num_hidden_layers": True}, "True"),
        ({"rms_norm_eps": float("nan")}, "nan"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"tie_word_embeddings": "yes"}, "'yes'"),
        ({"eos_token_id": ["a"]}, "eos_token_id"),
    ],
    ids=str,
)
def test_what_is_not_served_is_named(fields: dict[str, object], named: str) -> None:
    assert named in refused(config_of("llama", **fields)).what


@pytest.mark.parametrize(
    ("layer_types", "rule"),
    [(["full_attention"], "4 layers"), (["linear_attention"] * 4, "sliding_attention"), ("full", "full_attention")],
)
def test_layer_types_that_are_not_served(layer_types: object, rule: str) -> None:
    error = refused(config_of("qwen3", use_sliding_window=True, layer_types=layer_types))
    assert "layer_types" in error.what
    assert rule in error.rule


def test_a_real_config() -> None:
    """Qwen3-0.6B, as published."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "max_window_layers": 28,
        "model_type": "qwen3",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    }
    assert shape_from_config(config) == ModelShape(
        architecture="Qwen3ForCausalLM",
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_layers=28,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=True,
        qk_norm=True,
        dtype="bfloat16",
        eos_token_ids=(151645,),
        bos_token_id=151643,
    )
