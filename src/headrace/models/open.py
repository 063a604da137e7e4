"""From a model's files to its shape and to a reader of its weights, whichever format they have."""

from headrace.core.gguf_header import read_header
from headrace.models.checkpoint import Checkpoint
from headrace.models.dummy_checkpoint import DummyCheckpoint
from headrace.models.gguf_reader import GgufCheckpoint
from headrace.models.safetensors_reader import SafetensorsCheckpoint
from headrace.models.tensor_names import expected_tensors
from headrace.planner.gguf_config import shape_from_gguf
from headrace.planner.hf_config import shape_from_config
from headrace.planner.shape import ModelShape
from headrace.store.files import ModelFiles


def shape_of(files: ModelFiles) -> ModelShape:
    """The shape that the files describe. Raises `HeadraceError` for a model that is not served."""
    if files.kind == "gguf":
        return shape_from_gguf(files.header or read_header(files.path))
    return shape_from_config(files.config or {})


def open_checkpoint(files: ModelFiles, shape: ModelShape, seed: int = 0) -> Checkpoint:
    """The reader of the files' weights. Raises `HeadraceError` for a file that is not what it claims to be.

    `seed` chooses among the weights of a model that has no files of its own.
    """
    if files.kind == "dummy":
        return DummyCheckpoint(expected_tensors(shape), seed)
    if files.kind == "gguf":
        return GgufCheckpoint(files.header or read_header(files.path), shape)
    return SafetensorsCheckpoint(files.weight_files)
