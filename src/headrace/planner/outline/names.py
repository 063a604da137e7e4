"""One name for each field of a configuration: old models and multi-modal ones spell or nest them otherwise."""

from collections.abc import Callable, Mapping
from typing import Final

_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "hidden_size": ("n_embd", "d_model", "model_dim", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num"),
    "head_dim": ("attention_head_dim", "kv_channels"),
    "intermediate_size": ("ffn_hidden_size", "ffn_dim", "n_inner", "hidden_dim"),
    "vocab_size": ("padded_vocab_size", "n_vocab"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("moe_k", "moe_topk", "experts_per_token", "num_experts_per_token", "top_k_experts"),
    "n_shared_experts": ("moe_num_shared_experts", "num_shared_experts"),
    "dtype": ("torch_dtype",),
}
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config")
_TOP_LEVEL = ("tie_word_embeddings", "dtype", "torch_dtype")
_ONLY_TEXT = "Only the language model is counted; the config describes other parts (vision, audio) beside it"

Config = dict[str, object]


def canonical(config: Mapping[str, object]) -> tuple[Config, tuple[str, ...]]:
    """The language model's fields under one name each, and what was left out."""
    notes: tuple[str, ...] = ()
    own = dict(config)
    for name in _TEXT_CONFIGS:
        inner = own.get(name)
        if isinstance(inner, Mapping) and "hidden_size" in inner:
            top = {key: own[key] for key in _TOP_LEVEL if key in own}
            own, notes = {**top, **inner}, (_ONLY_TEXT,)
            break
    for name, others in _SYNONYMS.items():
        if own.get(name) is None:
            found = next((own[other] for other in others if own.get(other) is not None), None)
            if found is not None:
                own[name] = found
    rewrite = _REWRITES.get(str(own.get("model_type")))
    return (own if rewrite is None else rewrite(own)), notes


def _four_times(config: Config) -> Config:
    """The MLP is four times as wide unless the config says otherwise."""
    hidden = config.get("hidden_size")
    if config.get("intermediate_size") is None and isinstance(hidden, int):
        config["intermediate_size"] = 4 * hidden
    return config


def _gpt2(config: Config) -> Config:
    config = _four_times(config)
    return {**config, "num_learned_positions": config.get("max_position_embeddings", 1024)}


def _opt(config: Config) -> Config:
    """The first two positions are kept for padding."""
    positions = config.get("max_position_embeddings", 2048)
    return {**config, "num_learned_positions": positions + 2 if isinstance(positions, int) else positions}


def _falcon(config: Config) -> Config:
    """The 40B has groups of heads and two norms; the 7B one key-value head, and one norm for a parallel layer."""
    config = _four_times(config)
    new = bool(config.get("new_decoder_architecture"))
    if not new:
        heads = config.get("num_attention_heads")
        config["num_key_value_heads"] = 1 if config.get("multi_query", True) else heads
    norms = config.get("num_ln_in_parallel_attn") or 2
    config["num_layer_norms"] = norms if new else 1 if config.get("parallel_attn", True) else 2
    return config


def _stablelm(config: Config) -> Config:
    return {**config, "num_layer_norms": 1 if config.get("use_parallel_residual") else 2}


def _llama4(config: Config) -> Config:
    """Layers with an MLP have one of their own size; the experts and the shared one have `intermediate_size`."""
    size = config.get("intermediate_size")
    dense = config.get("intermediate_size_mlp", size)
    shared = {"moe_intermediate_size": size, "n_shared_experts": 1, "intermediate_size": dense}
    return {**config, **shared, "sliding_window": config.get("attention_chunk_size", 8192)}


def _ernie(config: Config) -> Config:
    return {**config, "first_k_dense_replace": config.get("moe_layer_start_index", 1)}


_REWRITES: Final[Mapping[str, Callable[[Config], Config]]] = {
    "gpt2": _gpt2,
    "bloom": _four_times,
    "falcon": _falcon,
    "opt": _opt,
    "stablelm": _stablelm,
    "llama4_text": _llama4,
    "ernie4_5_moe": _ernie,
}
