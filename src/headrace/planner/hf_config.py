"""The shape of a model from its Hugging Face config.json, in the spellings of transformers 4 and 5.

A field that is absent means what it means to the family's configuration class in transformers; one that is wrong, or
that asks for something that is not served, is refused by name.
"""

from collections.abc import Mapping
from typing import Final

from headrace.core.errors import HeadraceError
from headrace.planner.families import Family, family_of
from headrace.planner.fields import Fields
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
    hidden_size, num_heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    num_layers = fields.size("num_hidden_layers")
    max_positions = fields.size("max_position_embeddings", family.max_position_embeddings)
    rope_theta, rope_scaling = rope_from_config(config, max_positions)
    attention_bias = family.attention_bias and fields.flag("attention_bias", False)
    shape = ModelShape(
        architecture=family.architecture,
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.size("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_num_kv_heads(fields, family, num_heads),
        head_dim=_head_dim(fields, family, hidden_size, num_heads),
        max_position_embeddings=max_positions,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        qkv_bias=family.always_qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=family.mlp_bias and fields.flag("mlp_bias", False),
        qk_norm=family.qk_norm,
        sliding_windows=_sliding_windows(fields, family, num_layers),
        dtype=_dtype(fields),
        eos_token_ids=_token_ids(fields, "eos_token_id", family.eos_token_id),
        bos_token_id=next(iter(_token_ids(fields, "bos_token_id", family.bos_token_id)), None),
    )
    check_heads(shape, fields.source)
    return shape


def check_heads(shape: ModelShape, source: str) -> None:
    """Raise `HeadraceError` if the heads of a shape cannot be grouped or rotated."""
    if shape.num_heads % shape.num_kv_heads:
        raise HeadraceError(
            f"{source} has {shape.num_heads} query heads and {shape.num_kv_heads} key-value heads",
            rule="The query heads must be a multiple of the key-value heads",
            fix="Download the model again, or repair the file",
            param="model",
        )
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


def _num_kv_heads(fields: Fields, family: Family, num_heads: int) -> int:
    """An absent field takes the family's default; a null one means no grouping."""
    default = num_heads if fields.has("num_key_value_heads") else family.num_kv_heads or num_heads
    return fields.size("num_key_value_heads", default)


def _head_dim(fields: Fields, family: Family, hidden_size: int, num_heads: int) -> int:
    if fields.get("head_dim") is None and family.head_dim is None and hidden_size % num_heads:
        raise fields.bad("hidden_size", f"a multiple of num_attention_heads, which is {num_heads}")
    return fields.size("head_dim", family.head_dim or hidden_size // num_heads)


def _sliding_windows(fields: Fields, family: Family, num_layers: int) -> tuple[int | None, ...]:
    if family.sliding_window is None:
        return ()
    if family.qwen_windows and not fields.flag("use_sliding_window", False):
        return ()
    if fields.has("sliding_window") and fields.get("sliding_window") is None:
        return ()
    window = fields.size("sliding_window", family.sliding_window)
    if not family.qwen_windows:
        return (window,) * num_layers
    windows = tuple(window if slides else None for slides in _sliding_layers(fields, num_layers))
    return windows if any(windows) else ()


def _sliding_layers(fields: Fields, num_layers: int) -> list[bool]:
    """Which layers slide: `layer_types` says it or, where that is absent, those from `max_window_layers` on."""
    layer_types = fields.get("layer_types")
    if layer_types is None:
        first = fields.get("max_window_layers")
        first = 28 if first is None else first
        if not isinstance(first, int) or first < 0:
            raise fields.bad("max_window_layers", "a number of layers")
        return [layer >= first for layer in range(num_layers)]
    known = ("full_attention", "sliding_attention")
    if not isinstance(layer_types, list) or any(kind not in known for kind in layer_types):
        raise fields.bad("layer_types", f"a list of {' and '.join(known)}")
    if len(layer_types) != num_layers:
        raise fields.bad("layer_types", f"one entry for each of the {num_layers} layers")
    return [kind == "sliding_attention" for kind in layer_types]


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
