"""What a model says about how it wants to be sampled: generation_config.json, by vLLM's rules."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.store.files import ModelFiles

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def generation_config(choice: str, files: ModelFiles) -> Mapping[str, object]:
    """The generation config that `choice` names: "auto" (the model's own), "vllm" (none), or that of a directory."""
    if choice == "auto":
        return files.generation_config
    if choice == "vllm":
        return {}
    path = Path(choice) / "generation_config.json"
    try:
        generation = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise HeadraceError(
            f"{path} cannot be read: {error}",
            rule="generation_config is auto, vllm or a directory with a generation_config.json",
            fix="Check the directory",
            param="generation_config",
        ) from error
    return generation if isinstance(generation, dict) else {}


def eos_token_ids(generation: Mapping[str, object], others: Iterable[int | None]) -> tuple[int, ...]:
    """The tokens that end an answer: those of the generation config first, then `others` (config's, tokenizer's)."""
    listed = generation.get("eos_token_id")
    own = listed if isinstance(listed, list) else [listed]
    return tuple(dict.fromkeys(each for each in [*own, *others] if isinstance(each, int)))


def sampling_defaults(generation: Mapping[str, object]) -> dict[str, float]:
    """The `SamplingParams` fields that the generation config sets."""
    defaults = {name: value for name in _SAMPLING if isinstance(value := generation.get(name), int | float)}
    longest = generation.get("max_new_tokens")
    return {**defaults, "max_tokens": longest} if isinstance(longest, int) else defaults
