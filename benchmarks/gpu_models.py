"""Model folders for the GPU benchmarks: a true shape without weights, and a tokenizer of whole words.

Both engines make the weights up (load_format "dummy"): no timing depends on their values.
"""

import json
import random
from collections.abc import Mapping
from pathlib import Path

from headrace.cli.bench.prompts import RandomLengths, random_prompts
from headrace.planner.catalogue import find_known

_ALIKE = {
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_MORE: Mapping[str, dict[str, object]] = {
    "Qwen/Qwen3-0.6B": {
        "architectures": ["Qwen3ForCausalLM"], "bos_token_id": 151643, "eos_token_id": 151645, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "max_window_layers": 28, "sliding_window": None,
    },
    "meta-llama/Llama-3.1-8B": {
        "architectures": ["LlamaForCausalLM"], "bos_token_id": 128000, "eos_token_id": 128001, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "head_dim": 128, "mlp_bias": False, "pretraining_tp": 1, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""What the planner's catalogue does without."""

TINY = "tiny"
"""A model for trying a benchmark out on a CPU."""
_TINY_SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 12_000, "bos_token_id": 1, "eos_token_id": 2,
    "max_window_layers": 2,
}  # fmt: skip
MODELS = tuple(_MORE)


def config_of(name: str) -> dict[str, object]:
    """The config.json of a model of `MODELS`, or of `TINY`."""
    if name == TINY:
        return config_of(MODELS[0]) | _TINY_SIZES
    known = find_known(name)
    assert known is not None
    return {**_ALIKE, **known.config, **_MORE[name]}


def make_folder(name: str, parent: Path) -> Path:
    """The model's directory below `parent`, made if it is not there."""
    config = config_of(name)
    folder = parent / name.rpartition("/")[2].lower()
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    _write(folder / "tokenizer.json", _tokenizer(int(str(config["vocab_size"]))))
    template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0", "chat_template": template}
    _write(folder / "tokenizer_config.json", settings)
    return folder


def _tokenizer(size: int) -> dict[str, object]:
    """A token for each word that the load generator uses, so that prompts differ, and names for all others."""
    words = random_prompts(random.Random(0), RandomLengths(20_000, 1), 1)[0].text.split()
    used = dict.fromkeys(words)
    names = ["w0", *used, *(f"w{number}" for number in range(1, size - len(used)))]
    model = {"type": "WordLevel", "vocab": {name: token for token, name in enumerate(names)}, "unk_token": "w0"}
    others = ("truncation", "padding", "normalizer", "post_processor", "decoder")
    whole = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": model}
    return whole | dict.fromkeys(others)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))
