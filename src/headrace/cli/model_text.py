"""What the front needs of a model: its files found, its tokenizer, its sampling defaults. No torch, no weights."""

import json
from collections.abc import Mapping
from pathlib import Path

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.planner.gguf_config import shape_from_gguf
from headrace.planner.hf_config import shape_from_config
from headrace.server.model_text import ModelText
from headrace.store.files import ModelFiles
from headrace.store.resolve import resolve
from headrace.text.tokenizer import Tokenizer, open_tokenizer

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def find_model(config: EngineConfig) -> ModelFiles:
    """The model's files, downloaded if they are not here yet. Raises `HeadraceError` if they cannot be had."""
    return resolve(
        config.model,
        revision=config.revision,
        download_dir=config.download_dir,
        token=config.hf_token,
        check_config=_check_config,
    )


def load_model_text(config: EngineConfig, files: ModelFiles) -> ModelText:
    """The tokenizer, the tokens that end an answer, and the sampling defaults."""
    tokenizer = open_tokenizer(config.tokenizer or files.path, chat_template=config.chat_template)
    generation = _generation_config(config.generation_config, files)
    return ModelText(tokenizer, _eos_token_ids(files, generation, tokenizer), _sampling_defaults(generation))


def _check_config(config: Mapping[str, object]) -> None:
    shape_from_config(config)


def _generation_config(choice: str, files: ModelFiles) -> Mapping[str, object]:
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


def _eos_token_ids(files: ModelFiles, generation: Mapping[str, object], tokenizer: Tokenizer) -> tuple[int, ...]:
    shape = shape_from_gguf(files.header) if files.header is not None else shape_from_config(files.config or {})
    listed = generation.get("eos_token_id")
    own = listed if isinstance(listed, list) else [listed]
    ids = [*own, *shape.eos_token_ids, tokenizer.eos_token_id]
    return tuple(dict.fromkeys(each for each in ids if isinstance(each, int)))


def _sampling_defaults(generation: Mapping[str, object]) -> dict[str, float]:
    defaults = {name: value for name in _SAMPLING if isinstance(value := generation.get(name), int | float)}
    longest = generation.get("max_new_tokens")
    return {**defaults, "max_tokens": longest} if isinstance(longest, int) else defaults
