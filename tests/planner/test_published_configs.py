"""The catalogue against configurations as their authors published them, fields that we do not read included.

Found in public repositories (tests and converters of inference engines) on 2026-11-24; a few of the catalogue's models,
those whose layers are the least alike.
"""

import pytest

from headrace.planner.catalogue import find_known
from headrace.planner.outline.from_config import outline_from_config

PUBLISHED: dict[str, dict[str, object]] = {
    "zai-org/GLM-4.5-Air": {
        "model_type": "glm4_moe", "attention_bias": True, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
        "decoder_sparse_step": 1, "intermediate_size": 10944, "max_position_embeddings": 131072,
        "moe_intermediate_size": 1408, "norm_topk_prob": True, "num_attention_heads": 96, "n_group": 1, "topk_group": 1,
        "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 1,
        "num_hidden_layers": 46, "num_key_value_heads": 8, "partial_rotary_factor": 0.5, "rope_scaling": None,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 151552,
    },
    "Qwen/Qwen3-Next-80B-A3B-Instruct": {
        "model_type": "qwen3_next", "attention_bias": False, "decoder_sparse_step": 1, "dtype": "bfloat16",
        "full_attention_interval": 4, "head_dim": 256, "hidden_size": 2048, "intermediate_size": 5120,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 12, "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_value_head_dim": 128, "max_position_embeddings": 262144, "mlp_only_layers": [],
        "moe_intermediate_size": 512, "num_attention_heads": 16, "num_experts": 512, "num_experts_per_tok": 10,
        "num_hidden_layers": 48, "num_key_value_heads": 2, "partial_rotary_factor": 0.25, "rope_scaling": None,
        "shared_expert_intermediate_size": 512, "tie_word_embeddings": False, "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "Qwen/Qwen3-30B-A3B": {
        "model_type": "qwen3_moe", "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128,
        "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48,
        "mlp_only_layers": [], "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "rope_scaling": None,
        "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "google/gemma-3-12b-it": {
        "model_type": "gemma3", "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152},
        "text_config": {
            "model_type": "gemma3_text", "attention_bias": False, "cache_implementation": "hybrid", "head_dim": 256,
            "hidden_size": 3840, "intermediate_size": 15360, "max_position_embeddings": 131072,
            "num_attention_heads": 16, "num_hidden_layers": 48, "num_key_value_heads": 8, "vocab_size": 262208,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024, "sliding_window_pattern": 6,
        },
    },
    "google/gemma-3-270m": {
        "model_type": "gemma3_text", "hidden_size": 640, "vocab_size": 262144, "num_hidden_layers": 18,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 2048,
        "_sliding_window_pattern": 6, "sliding_window": 512, "max_position_embeddings": 32768, "dtype": "bfloat16",
    },
    "microsoft/Phi-3-mini-4k-instruct": {
        "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rope_scaling": None,
        "original_max_position_embeddings": 4096, "sliding_window": 2047, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "vocab_size": 32064,
    },
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": {
        "model_type": "llama4", "torch_dtype": "bfloat16",
        "text_config": {
            "model_type": "llama4_text", "attention_bias": False, "attention_chunk_size": 8192, "head_dim": 128,
            "hidden_size": 5120, "interleave_moe_layer_step": 2, "intermediate_size": 8192,
            "intermediate_size_mlp": 16384, "max_position_embeddings": 1048576, "num_attention_heads": 40,
            "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8, "num_local_experts": 128,
            "rope_scaling": None, "vocab_size": 202048,
        },
    },
    "meta-llama/Llama-4-Scout-17B-16E": {
        "model_type": "llama4_text", "torch_dtype": "bfloat16", "attention_bias": False, "attention_chunk_size": 8192,
        "head_dim": 128, "hidden_size": 5120, "interleave_moe_layer_step": 1, "intermediate_size": 8192,
        "intermediate_size_mlp": 16384, "max_position_embeddings": 262144, "moe_layers": list(range(48)),
        "no_rope_layers": [1, 1, 1, 0] * 12, "num_attention_heads": 40, "num_key_value_heads": 8,
        "num_local_experts": 16, "num_experts_per_tok": 1, "num_hidden_layers": 48, "vocab_size": 202048,
    },
    "deepseek-ai/DeepSeek-V3": {
        "model_type": "deepseek_v3", "attention_bias": False, "ep_size": 1, "first_k_dense_replace": 3,
        "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
        "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
        "n_shared_experts": 1, "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
        "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "vocab_size": 129280,
    },
    # K2.5's language model, which is K2's; its context is longer, and K2's own is given here.
    "moonshotai/Kimi-K2-Instruct": {
        "model_type": "kimi_k2", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "num_hidden_layers": 61, "num_attention_heads": 64, "num_key_value_heads": 64, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_layer_freq": 1,
        "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "max_position_embeddings": 131072,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 163840,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_catalogue_says_what_was_published(name: str) -> None:
    known = find_known(name)
    assert known is not None
    ours, theirs = outline_from_config(known.config), outline_from_config(PUBLISHED[name])
    assert ours.layers == theirs.layers
    assert (ours.parameters, ours.longest_context, ours.dtype) == (
        theirs.parameters,
        theirs.longest_context,
        theirs.dtype,
    )
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
