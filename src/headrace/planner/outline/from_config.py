"""The outline of a model from its config.json, for every decoder that says its dimensions.

A model type that is not known is counted as a generic decoder, and the outline's notes say so.
"""

from collections.abc import Mapping

from headrace.core.errors import HeadraceError
from headrace.planner.fields import Fields
from headrace.planner.outline.layer_config import layers, switched
from headrace.planner.outline.model import ModelOutline
from headrace.planner.outline.names import canonical
from headrace.planner.outline.positions import longest_positions
from headrace.planner.outline.traits import GENERIC, TRAITS, Traits

_NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
_MAX_LAYERS = 10_000


def outline_from_config(config: Mapping[str, object], source: str = "config.json") -> ModelOutline:
    """The outline that a parsed config.json describes.

    Raises `HeadraceError` for a field that is missing or wrong, and for a model that is not a decoder.
    """
    own, notes = canonical(config)
    model_type = str(own.get("model_type") or "unnamed")
    traits = TRAITS.get(model_type, GENERIC)
    fields = Fields({**traits.defaults, **own}, source)
    if fields.get("is_encoder_decoder"):
        raise _no_decoder(model_type, source)
    sparse_only = fields.get("num_experts") and fields.get("moe_intermediate_size")
    fields.require(*_NEEDED, *(() if sparse_only else ("intermediate_size",)))
    if fields.size("num_hidden_layers") > _MAX_LAYERS:
        raise fields.bad("num_hidden_layers", f"at most {_MAX_LAYERS}")
    if traits is GENERIC:
        notes = (*notes, _assumed(model_type))
    return _outline(fields, traits, model_type, notes)


def _outline(fields: Fields, traits: Traits, model_type: str, notes: tuple[str, ...]) -> ModelOutline:
    positions = fields.get("num_learned_positions")
    return ModelOutline(
        model_type=model_type,
        vocab_size=fields.size("vocab_size"),
        hidden_size=fields.size("hidden_size"),
        layers=layers(fields, traits),
        max_position_embeddings=fields.size("max_position_embeddings", 2048),
        longest_context=longest_positions(fields, model_type),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        norm_vectors=traits.norm_vectors,
        num_outer_norms=traits.num_outer_norms,
        num_positions=0 if positions is None else fields.size("num_learned_positions"),
        head_bias=switched(fields, traits.head_bias),
        dtype=str(fields.get("dtype") or "float32").removeprefix("torch."),
        notes=notes,
    )


def _assumed(model_type: str) -> str:
    return (
        f"The model type {model_type!r} is not known: counted as a generic decoder (queries, keys, values and output, "
        "a gated MLP, two norms a layer), so small parts of it may be missing"
    )


def _no_decoder(model_type: str, source: str) -> HeadraceError:
    return HeadraceError(
        f"{source} describes an encoder-decoder model ({model_type})",
        rule="Decoder-only language models are planned",
        fix="Name a decoder-only model",
        param="model",
    )
