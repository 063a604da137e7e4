"""How far a model's positions reach."""

from collections.abc import Mapping

from headrace.planner.fields import Fields

_DEFAULT_POSITIONS = 2048
_COUNTED_ALREADY = ("gemma3_text",)
"""Types whose `max_position_embeddings` is that of the stretched context."""


def stretched(kind: str, factor: float, original: int | None, trained: int) -> int:
    """`trained` positions under a rope scaling (as in vLLM).

    llama3 scaling is counted in them already; yarn stretches the context that it was trained on.
    """
    if kind == "yarn":
        return max(trained, int((original or trained) * factor))
    return int(trained * factor) if kind in ("linear", "dynamic") else trained


def longest_positions(fields: Fields, model_type: str) -> int:
    """The longest context that a configuration describes; rope scalings of other kinds do not stretch it."""
    trained = fields.size("max_position_embeddings", _DEFAULT_POSITIONS)
    raw = fields.get("rope_scaling") or fields.get("rope_parameters")
    if not isinstance(raw, Mapping) or model_type in _COUNTED_ALREADY:
        return trained
    rope = Fields(raw, f"the rope scaling of {fields.source}")
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    original = rope.size("original_max_position_embeddings", fields.size("original_max_position_embeddings", trained))
    return stretched(kind, rope.number("factor", trained / original), original, trained)
