"""The shape of a model from its Hugging Face config.json, in the spellings of transformers 4 and 5.

Dimensions are read as for any model, into its outline; this is the strict case, which the engine runs. A field that is
absent means what it means to the family's configuration class in transformers; one that is wrong, or that asks for
something that is not served, is refused by name.
"""

from collections.abc import Mapping
from typing import Final

from headrace.core.errors import HeadraceError
from headrace.planner.families import Family, family_of
from headrace.planner.fields import Fields
from headrace.planner.outline.feedforward import Mlp
from headrace.planner.outline.from_config import outline_from_config
from headrace.planner.outline.layer_config import ungrouped
from headrace.planner.outline.mixers import Attention
from headrace.planner.outline.model import ModelOutline
from headrace.planner.rope import rope_from_config
from headrace.planner.shape import ModelShape

DTYPES: Final = ("bfloat16", "float16", "float32")

_DIMENSIONS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_SILU = ("silu", "swish")


def shape_from_config(config: Mapping[str, object]) -> ModelShape:
    """The shape that a parsed config.json describes. Raises `HeadraceError` for a model that is not served."""
    fields = Fields(config, "config.json")
    family = _family(fields)
    fields.require(*_DIMENSIONS)
    _check_activation(fields)
    max_positions = fields.size("max_position_embeddings", family.max_position_embeddings)
    rope_theta, rope_scaling = rope_from_config(config, max_positions)
    outline = outline_from_config({**config, "model_type": family.model_type})
    attention, mlp = _the_same_everywhere(outline, family)
    windows = tuple(layer.window for layer in outline.attention_layers)
    shape = ModelShape(
        architecture=family.architecture,
        vocab_size=outline.vocab_size,
        hidden_size=outline.hidden_size,
        intermediate_size=mlp.intermediate,
        num_layers=outline.num_layers,
        num_heads=attention.num_heads,
        num_kv_heads=attention.num_kv_heads,
        head_dim=attention.head_dim,
        max_position_embeddings=max_positions,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        tie_word_embeddings=outline.tie_word_embeddings,
        qkv_bias=attention.qkv_bias,
        output_bias=attention.output_bias,
        mlp_bias=mlp.bias,
        qk_norm=attention.qk_norm != "none",
        sliding_windows=windows if any(windows) else (),
        dtype=_dtype(fields),
        eos_token_ids=_token_ids(fields, "eos_token_id", family.eos_token_id),
        bos_token_id=next(iter(_token_ids(fields, "bos_token_id", family.bos_token_id)), None),
    )
    check_heads(shape, fields.source)
    return shape


def check_heads(shape: ModelShape, source: str) -> None:
    """Raise `HeadraceError` if the heads of a shape cannot be grouped or rotated."""
    if shape.num_heads % shape.num_kv_heads:
        raise ungrouped(source, shape.num_heads, shape.num_kv_heads)
    if shape.head_dim % 2:
        raise HeadraceError(
            f"{source} has heads of {shape.head_dim} elements",
            rule="Rotary embeddings need an even number",
            fix="Download the model again, or repair the file",
            param="model",
        )


def _family(fields: Fields) -> Family:
    architectures, model_type = fields.get("architectures"), fields.get("model_type")
    if architectures is None and model_type is None:
        fields.require("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else architectures or None
    return family_of(None if named is None else str(named), None if model_type is None else str(model_type))


def _check_activation(fields: Fields) -> None:
    if fields.get("hidden_act") not in (None, *_SILU):
        raise HeadraceError(
            f"hidden_act in {fields.source} is {fields.get('hidden_act')!r}",
            rule="The activation that is served is silu",
            fix="Use a model of the llama, mistral, qwen2 or qwen3 family as published",
            param="model",
        )


def _the_same_everywhere(outline: ModelOutline, family: Family) -> tuple[Attention, Mlp]:
    """What all layers have. Raises for a mixture of experts or latent attention under the name of a served family."""
    mixer, mlp = outline.layers[0].mixer, outline.layers[0].feed_forward
    alike = all(isinstance(each.mixer, Attention) and each.feed_forward == mlp for each in outline.layers)
    if alike and isinstance(mixer, Attention) and isinstance(mlp, Mlp):
        return mixer, mlp
    raise HeadraceError(
        f"config.json says {family.architecture} and describes experts, or attention that keeps no keys and values",
        rule=f"A {family.architecture} that is served has the same attention and one MLP in each layer",
        fix="Use a model of the llama, mistral, qwen2 or qwen3 family as published",
        param="model",
    )


def _dtype(fields: Fields) -> str:
    """transformers 5 says `dtype`, 4 says `torch_dtype`; a checkpoint that says neither is float32."""
    name = "dtype" if fields.get("dtype") is not None else "torch_dtype"
    value = str(fields.get(name) or "float32").removeprefix("torch.")
    if value not in DTYPES:
        raise fields.bad(name, f"one of {', '.join(DTYPES)}")
    return value


def _token_ids(fields: Fields, name: str, default: int | None) -> tuple[int, ...]:
    if fields.has(name) or default is None:
        return fields.token_ids(name)
    return (default,)
