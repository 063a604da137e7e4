"""One small configuration for each thing in which the families differ."""

from transformers import LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


def llama(rope: dict[str, object] | None = None, **options: object) -> LlamaConfig:
    parameters = {"rope_type": "default", "rope_theta": 10_000.0} | (rope or {})
    return LlamaConfig(**(SIZES | {"rope_parameters": parameters} | options))


CONFIGS: dict[str, PretrainedConfig] = {
    "llama, GQA, llama3 rope, tied": llama({"rope_type": "llama3"} | LLAMA3, tie_word_embeddings=True),
    "llama, biases, untied": llama(attention_bias=True, mlp_bias=True),
    "llama, linear rope": llama({"rope_type": "linear", "factor": 4.0}),
    "llama, dynamic rope": llama({"rope_type": "dynamic", "factor": 2.0}),
    "llama, yarn rope": llama({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
    "mistral, window": MistralConfig(**SIZES, sliding_window=8),
    "mistral, head_dim": MistralConfig(**SIZES, sliding_window=None, head_dim=16),
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2, window in the last layer": Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=2
    ),
    "qwen3, qk-norm, head_dim": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
}
