"""Tiny random models of transformers, and our decoder run step by step through a paged cache, to compare the two."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from headrace.core.config import Quantization
from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import HeadShape, kv_cache
from headrace.kernels.torch_ops import TorchOps
from headrace.models.decoder import Decoder
from headrace.models.load import load_model
from headrace.models.open import shape_of
from headrace.planner.shape import ModelShape
from headrace.store.files import ModelFiles
from headrace.store.local import open_path

CPU = torch.device("cpu")
BLOCK_SIZE = 8
BLOCKS_PER_ROW = 8


def save_random_model(config: PretrainedConfig, path: Path, **options: object) -> PreTrainedModel:
    """A model with every parameter random (biases and norms too, so that none can be forgotten), saved at `path`."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.15)
    model.save_pretrained(path, **options)
    return model


def files_at(path: Path) -> ModelFiles:
    """The files of a directory that `save_pretrained` wrote."""
    return open_path("tiny", path)


def load(
    files: ModelFiles,
    shape: ModelShape | None = None,
    quantization: Quantization = "none",
    dtype: torch.dtype = torch.float32,
) -> Decoder:
    """Load for the CPU with the plain operations."""
    shape = shape or shape_of(files)
    return load_model(
        files,
        shape,
        TorchOps(),
        dtype=dtype,
        quantization=quantization,
        device=CPU,
        max_model_len=BLOCK_SIZE * BLOCKS_PER_ROW,
    )


class PagedRun:
    """A decoder with a paged cache of `rows` sequences, whose blocks lie in a random order."""

    def __init__(self, decoder: Decoder, rows: int = 1) -> None:
        shape = decoder.shape
        heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.head_dim)
        blocks = rows * BLOCKS_PER_ROW
        self._decoder = decoder
        self._caches = kv_cache(shape.num_layers, blocks, BLOCK_SIZE, heads, torch.float32, CPU)
        self._tables = np.random.default_rng(1).permutation(blocks).astype(np.int32).reshape(rows, -1)
        self._lengths = [0] * rows

    def step(self, tokens: dict[int, Sequence[int]]) -> dict[int, Tensor]:
        """Add tokens to rows, all in one forward pass; log-probabilities `[tokens, vocab]` of each row."""
        lens = [len(added) for added in tokens.values()]
        for row, added in tokens.items():
            self._lengths[row] += len(added)
        batch = make_step_batch(
            lens, [self._lengths[row] for row in tokens], self._tables[list(tokens)], BLOCK_SIZE, CPU
        )
        with torch.inference_mode():
            flat = torch.tensor([token for added in tokens.values() for token in added])
            logits = self._decoder.logits(self._decoder.forward(flat, batch, self._caches)).float()
        return dict(zip(tokens, logits.log_softmax(-1).split(lens), strict=True))


def reference_logprobs(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    """What transformers says about a whole sequence: `[tokens, vocab]`."""
    with torch.inference_mode():
        return model(torch.tensor([list(tokens)])).logits[0].float().log_softmax(-1)


def random_tokens(count: int, vocab_size: int, seed: int = 0) -> list[int]:
    """Reproducible token ids."""
    return np.random.default_rng(seed).integers(0, vocab_size, count).tolist()
