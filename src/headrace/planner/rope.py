"""The rotary embedding of a model: `rope_parameters` (transformers 5) or `rope_scaling` (4) of its config.json."""

from collections.abc import Mapping
from typing import Final

from headrace.core.errors import HeadraceError
from headrace.planner.fields import Fields
from headrace.planner.shape import RopeScaling

DEFAULT_THETA: Final = 10_000.0

_LAYER_TYPES = ("full_attention", "sliding_attention")


def rope_from_config(config: Mapping[str, object], max_position_embeddings: int) -> tuple[float, RopeScaling]:
    """The base (theta) and the scaling. Raises `HeadraceError` for a type that is not served or lacks a parameter."""
    raw = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(raw, Mapping):
        raise Fields(config, "config.json").bad("rope_scaling", "an object")
    if any(isinstance(raw.get(layer_type), Mapping) for layer_type in _LAYER_TYPES):
        raise HeadraceError(
            "config.json gives each kind of layer its own rope_parameters",
            rule="One rotary embedding for all layers is served",
            fix="Use a model of the llama, mistral, qwen2 or qwen3 family as published",
            param="model",
        )
    top, rope = Fields(config, "config.json"), Fields(raw, "rope_parameters of config.json")
    _refuse_partial(top, rope)
    theta = rope.optional_number("rope_theta") or top.number("rope_theta", DEFAULT_THETA)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    trained = rope.size("original_max_position_embeddings", max_position_embeddings)
    trained = top.size("original_max_position_embeddings", trained)
    return theta, _scaling(str(kind), rope, max_position_embeddings, trained)


def unserved_rope(kind: str) -> HeadraceError:
    """The error for a rope type that is not served."""
    return HeadraceError(
        f"The model's rope type is {kind!r}",
        rule="The rope types that are served are default, linear, dynamic, llama3 and yarn",
        fix="Use a variant of the model without it",
        param="model",
    )


def _scaling(kind: str, rope: Fields, max_positions: int, original: int) -> RopeScaling:
    if kind == "default":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling("linear", rope.number("factor"))
    if kind == "dynamic":
        return RopeScaling("dynamic", rope.number("factor"), original_max_position_embeddings=max_positions)
    if kind == "llama3":
        return _llama3(rope, original)
    if kind == "yarn":
        return _yarn(rope, max_positions, original)
    raise unserved_rope(kind)


def _llama3(rope: Fields, original: int) -> RopeScaling:
    rope.require("factor", "low_freq_factor", "high_freq_factor")
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if low >= high:
        raise rope.bad("low_freq_factor", f"smaller than high_freq_factor, which is {high:g}")
    return RopeScaling(
        "llama3",
        rope.number("factor"),
        original_max_position_embeddings=original,
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _yarn(rope: Fields, max_positions: int, original: int) -> RopeScaling:
    """Without a factor it is the ratio of the two contexts, as in transformers."""
    return RopeScaling(
        "yarn",
        rope.number("factor", max_positions / original),
        original_max_position_embeddings=original,
        attention_factor=rope.optional_number("attention_factor"),
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        mscale=rope.optional_number("mscale"),
        mscale_all_dim=rope.optional_number("mscale_all_dim"),
        truncate=rope.flag("truncate", True),
    )


def _refuse_partial(top: Fields, rope: Fields) -> None:
    for fields in (top, rope):
        if fields.number("partial_rotary_factor", 1.0) != 1.0:
            raise HeadraceError(
                f"partial_rotary_factor in {fields.source} is {fields.get('partial_rotary_factor')}",
                rule="Rotary embeddings over the whole head (1.0) are served",
                fix="Use a model of the llama, mistral, qwen2 or qwen3 family as published",
                param="model",
            )
