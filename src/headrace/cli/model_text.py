"""What the front needs of a model: its files, then its tokenizer and its sampling defaults. No torch, no weights."""

from headrace.core.config import EngineConfig
from headrace.planner.gguf_config import shape_from_gguf
from headrace.planner.hf_config import shape_from_config
from headrace.server.model_text import ModelText
from headrace.store.files import ModelFiles
from headrace.store.generation import eos_token_ids, generation_config, sampling_defaults
from headrace.store.resolve import resolve
from headrace.text.tokenizer import open_tokenizer


def find_model(config: EngineConfig) -> ModelFiles:
    """The model's files, downloaded if they are not here yet. Raises `HeadraceError` if they cannot be had."""
    return resolve(
        config.model,
        revision=config.revision,
        download_dir=config.download_dir,
        token=config.hf_token,
        load_format=config.load_format,
        check_config=shape_from_config,
    )


def load_model_text(config: EngineConfig, files: ModelFiles) -> ModelText:
    """The tokenizer, the tokens that end an answer, and the sampling defaults."""
    tokenizer = open_tokenizer(config.tokenizer or files.path, chat_template=config.chat_template)
    generation = generation_config(config.generation_config, files)
    shape = shape_from_gguf(files.header) if files.header is not None else shape_from_config(files.config or {})
    ends = eos_token_ids(generation, [*shape.eos_token_ids, tokenizer.eos_token_id])
    return ModelText(tokenizer, ends, sampling_defaults(generation))
