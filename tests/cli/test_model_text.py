"""What the front finds of a model."""

import json
from pathlib import Path

import pytest

from headrace.cli.model_text import find_model
from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError


def test_made_up_weights_need_no_weight_file(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 99, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert find_model(EngineConfig.from_kwargs(model=str(tmp_path), load_format="dummy")).kind == "dummy"
    with pytest.raises(HeadraceError, match="has no weights"):
        find_model(EngineConfig.from_kwargs(model=str(tmp_path)))
