"""What a model is on disk, once it has been found and its files have been checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headrace.core.gguf_header import GgufHeader

WeightKind = Literal["safetensors", "gguf", "dummy"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files. `name` is what the user said; `path` is the directory, or the .gguf file itself.

    `weight_files` are all files that hold weights; kind "dummy" has none. `config` is the parsed config.json, and
    `generation_config` the parsed generation_config.json or {}; a GGUF file has neither, and its `header` instead.
    """

    name: str
    path: Path
    kind: WeightKind
    weight_files: tuple[Path, ...]
    config: dict[str, object] | None = None
    generation_config: dict[str, object] = field(default_factory=dict)
    header: GgufHeader | None = None
