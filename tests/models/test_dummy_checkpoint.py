"""Weights that are made up: of the model's shape, the same for the same seed, and such that activations stay finite."""

import json
from pathlib import Path

import pytest
import torch
from model_parity import CPU, PagedRun, random_tokens

from headrace.core.config import Quantization
from headrace.kernels.torch_ops import TorchOps
from headrace.models.decoder import Decoder
from headrace.models.load import load_model
from headrace.models.open import open_checkpoint, shape_of
from headrace.models.tensor_names import expected_tensors
from headrace.store.local import open_weightless

DEEP = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "torch_dtype": "bfloat16", "vocab_size": 300,
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 40, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 64, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a config.json and nothing else."""
    (tmp_path / "config.json").write_text(json.dumps(DEEP))
    return tmp_path


def load(folder: Path, seed: int, quantization: Quantization = "none") -> Decoder:
    files = open_weightless("deep", folder)
    return load_model(
        files, shape_of(files), TorchOps(), dtype=torch.float32, quantization=quantization, device=CPU,
        max_model_len=64, seed=seed,
    )  # fmt: skip


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_a_deep_model_computes_finite_and_different_logits(folder: Path, quantization: Quantization) -> None:
    logprobs = PagedRun(load(folder, 0, quantization)).step({0: random_tokens(20, 300)})[0]
    assert logprobs.isfinite().all()
    assert logprobs.std(dim=1).min() > 0.01


def test_the_seed_decides(folder: Path) -> None:
    first, again, other = (PagedRun(load(folder, seed)).step({0: [5, 7]})[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_weights_do_not_depend_on_the_order_of_reading(folder: Path) -> None:
    files = open_weightless("deep", folder)
    names = ["model.layers.3.mlp.up_proj.weight", "model.layers.4.mlp.up_proj.weight", "model.norm.weight"]
    read = {}
    for order in (names, names[::-1]):
        checkpoint = open_checkpoint(files, shape_of(files), seed=9)
        for name in order:
            target = torch.empty(checkpoint.info(name).shape)
            checkpoint.copy_rows(name, 0, target)
            assert torch.equal(read.setdefault(name, target), target)
    assert read[names[0]].std() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(read[names[0]], read[names[1]])
    assert read[names[2]].eq(1).all()


def test_it_has_every_tensor_and_no_other(folder: Path) -> None:
    files = open_weightless("deep", folder)
    shape = shape_of(files)
    checkpoint = open_checkpoint(files, shape)
    assert {name: checkpoint.info(name).shape for name in checkpoint.names} == expected_tensors(shape)
