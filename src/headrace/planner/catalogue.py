"""Well-known models, so that planning for them needs no network: their configurations, and the counts that check them.

`data/models.json` holds what a config.json says of dimensions. `parameters` is the published count of the weights of
the language model; `buffers` of it are routing corrections that are not trained.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model: its hub id, other ids of the same dimensions, its configuration and its published size."""

    name: str
    aliases: tuple[str, ...]
    parameters: int
    buffers: int
    config: Mapping[str, object]


def known_models() -> tuple[KnownModel, ...]:
    """All models of the catalogue."""
    return _load()


def find_known(name: str) -> KnownModel | None:
    """The model of a hub id, in any case; None if it is not in the catalogue."""
    return _by_name().get(name.lower())


def known_names() -> list[str]:
    """Every id that `find_known` answers to, as it is written."""
    return [name for model in _load() for name in (model.name, *model.aliases)]


@cache
def _load() -> tuple[KnownModel, ...]:
    text = (files("headrace.planner") / "data" / "models.json").read_text()
    return tuple(_model(entry) for entry in json.loads(text))


def _model(entry: dict[str, Any]) -> KnownModel:
    return KnownModel(
        entry["id"], tuple(entry["aliases"]), entry["parameters"], entry.get("buffers", 0), entry["config"]
    )


@cache
def _by_name() -> Mapping[str, KnownModel]:
    return {name.lower(): model for model in _load() for name in (model.name, *model.aliases)}
