"""Models small enough to write in a millisecond, and a hub to put them on."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub
from safetensors.numpy import save

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "dtype": "bfloat16",
}


@pytest.fixture
def safetensors_files() -> dict[str, bytes]:
    """A whole model in two shards, by file name."""
    shards = {
        "model-00001-of-00002.safetensors": {"a.weight": np.ones((4, 4), np.float32)},
        "model-00002-of-00002.safetensors": {"b.weight": np.zeros((2, 4), np.float32)},
    }
    weight_map = {tensor: file for file, tensors in shards.items() for tensor in tensors}
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "generation_config.json": b'{"temperature": 0.6}',
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
        **{file: save(tensors) for file, tensors in shards.items()},
    }


@pytest.fixture
def model_dir(tmp_path: Path, safetensors_files: dict[str, bytes]) -> Path:
    """The same model in a directory."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in safetensors_files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub, where the hub client looks for one, and no token."""
    server = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()
