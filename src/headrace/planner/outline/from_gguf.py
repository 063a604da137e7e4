"""The outline of a model from the header of its GGUF file: llama.cpp's names, turned into those of a config.json."""

from collections.abc import Mapping
from typing import Final

from headrace.core.errors import HeadraceError
from headrace.core.gguf_header import GgufHeader
from headrace.planner.outline.from_config import outline_from_config
from headrace.planner.outline.model import ModelOutline

_MODEL_TYPES: Final[Mapping[str, str]] = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi2": "phi",
    "phi3": "phi3",
    "command-r": "cohere",
    "cohere2": "cohere2",
    "olmo2": "olmo2",
    "olmoe": "olmoe",
    "granite": "granite",
    "starcoder2": "starcoder2",
    "stablelm": "stablelm",
    "gptneox": "gpt_neox",
    "deepseek2": "deepseek_v3",
    "gpt-oss": "gpt_oss",
    "llama4": "llama4_text",
    "glm4": "glm4",
}
_NAMES: Final[Mapping[str, str]] = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.kv_lora_rank": "kv_lora_rank",
    "attention.q_lora_rank": "q_lora_rank",
    "context_length": "max_position_embeddings",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "vocab_size": "vocab_size",
}
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"


def outline_from_gguf(header: GgufHeader) -> ModelOutline:
    """The outline that a GGUF header describes, served or not. Raises `HeadraceError` for missing metadata."""
    architecture = str(header.scalars.get("general.architecture"))
    prefix = f"{architecture}."
    config: dict[str, object] = {
        ours: _value(header, prefix + theirs)
        for theirs, ours in _NAMES.items()
        if prefix + theirs in header.scalars or prefix + theirs in header.arrays
    }
    config["dtype"] = "bfloat16"
    config["model_type"] = _MODEL_TYPES.get(architecture, architecture)
    config["tie_word_embeddings"] = _HEAD not in header.tensors
    config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    if _EMBEDDING in header.tensors:
        config["vocab_size"] = header.tensors[_EMBEDDING].shape[0]
        config["dtype"] = "float32" if header.tensors[_EMBEDDING].type.name == "F32" else "bfloat16"
    return outline_from_config(config | _latent(config, header, prefix), "the metadata of the GGUF file")


def _value(header: GgufHeader, key: str) -> object:
    """A scalar; an array of a value for each layer stands for it where it is the same in all."""
    if key in header.scalars:
        return header.scalars[key]
    values = header.numbers(key)
    if len(set(values)) == 1:
        return values[0]
    raise HeadraceError(
        f"{key} of {header.path} differs from layer to layer",
        rule="GGUF files with the same heads and sizes in every layer are planned",
        fix="Name the model's directory or hub id instead",
        param="model",
    )


def _latent(config: Mapping[str, object], header: GgufHeader, prefix: str) -> dict[str, object]:
    """Latent attention: llama.cpp writes the whole key's length, and the rotary part of it."""
    if config.get("kv_lora_rank") is None:
        return {}
    scalars = header.scalars
    key = scalars.get(f"{prefix}attention.key_length_mla", scalars.get(f"{prefix}attention.key_length"))
    value = scalars.get(f"{prefix}attention.value_length_mla", scalars.get(f"{prefix}attention.value_length"))
    rope = scalars.get(f"{prefix}rope.dimension_count")
    if not isinstance(key, int) or not isinstance(rope, int):
        return {}
    return {"qk_nope_head_dim": key - rope, "qk_rope_head_dim": rope, "v_head_dim": value}
