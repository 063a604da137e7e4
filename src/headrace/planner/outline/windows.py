"""Which layers see all tokens, which a window of the last ones, and which keep a state instead."""

from typing import Final

from headrace.planner.fields import Fields
from headrace.planner.outline.traits import GENERIC, Traits

FULL: Final = "full"
LINEAR: Final = "linear"

Kind = str | int
"""`FULL`, `LINEAR`, or the window in tokens."""

_FULL_TYPES = ("full_attention", "attention", "global_attention")
_WINDOW_TYPES = ("sliding_attention", "chunked_attention", "local_attention")
_LINEAR_TYPES = ("linear_attention",)
_DEFAULT_MAX_WINDOW_LAYERS = 28


def layer_kinds(fields: Fields, traits: Traits, count: int) -> list[Kind]:
    """The kind of each of `count` layers."""
    interval = fields.get("full_attention_interval")
    if fields.get("layer_types") is None and interval is not None:
        every = fields.size("full_attention_interval")
        return [FULL if (layer + 1) % every == 0 else LINEAR for layer in range(count)]
    has_states = traits is GENERIC or interval is not None
    if traits.window_every is None and not has_states:
        return [FULL] * count
    window = _window(fields, traits)
    if window is None and not has_states:
        return [FULL] * count
    if fields.get("layer_types") is not None and (traits.window_every or traits.window_switch or has_states):
        return _named(fields, count, window, has_states)
    slides = _sliding(fields, traits, count)
    return [window if window is not None and slide else FULL for slide in slides]


def _window(fields: Fields, traits: Traits) -> int | None:
    """The window in tokens; None where there is none, or it is switched off."""
    has_switch = traits.window_switch or traits is GENERIC
    if has_switch and not fields.flag("use_sliding_window", traits is GENERIC):
        return None
    return fields.size("sliding_window") if fields.get("sliding_window") is not None else None


def _named(fields: Fields, count: int, window: int | None, has_states: bool) -> list[Kind]:
    """The kinds that `layer_types` names."""
    types = fields.get("layer_types")
    known = (*_FULL_TYPES, *_WINDOW_TYPES, *(_LINEAR_TYPES if has_states else ()))
    if not isinstance(types, list) or any(kind not in known for kind in types):
        names = ("full_attention", "sliding_attention", *(_LINEAR_TYPES if has_states else ()))
        raise fields.bad("layer_types", f"a list of {' and '.join(names)}")
    if len(types) != count:
        raise fields.bad("layer_types", f"one entry for each of the {count} layers")
    local: Kind = FULL if window is None else window
    return [LINEAR if kind in _LINEAR_TYPES else local if kind in _WINDOW_TYPES else FULL for kind in types]


def _sliding(fields: Fields, traits: Traits, count: int) -> list[bool]:
    """Which layers have a window where no `layer_types` says so."""
    if traits.window_switch:
        first = fields.get("max_window_layers")
        first = _DEFAULT_MAX_WINDOW_LAYERS if first is None else first
        if not isinstance(first, int) or first < 0:
            raise fields.bad("max_window_layers", "a number of layers")
        return [layer >= first for layer in range(count)]
    pattern = fields.get("sliding_window_pattern")
    if isinstance(pattern, str):  # EXAONE 4 writes "LLLG": local, local, local, global
        return [pattern[layer % len(pattern)] == "L" for layer in range(count)]
    every = fields.size("sliding_window_pattern", traits.window_every or None) if pattern or traits.window_every else 0
    return [every == 0 or (layer + 1) % every != 0 for layer in range(count)]
