"""GGUF files made out of tiny transformers models, written as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as GgmlType
from transformers import PreTrainedModel

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
}
HALVES = {GgmlType.Q4_K: (0, 2), GgmlType.Q5_K: (0, 2), GgmlType.Q6_K: (208,)}
"""Where the float16 scales lie in a block of the types that the package cannot quantize to."""


def write_gguf(path: Path, model: PreTrainedModel, architecture: str, kind: GgmlType) -> None:
    """Write `model` with its matrices as `kind`, and put the values that this leaves into `model`."""
    writer = gguf.GGUFWriter(path, architecture)
    _write_metadata(writer, model)
    tied = model.config.tie_word_embeddings
    for name, parameter in model.state_dict().items():
        if tied and name.startswith("lm_head"):
            continue
        order = _file_order(name, parameter, model) if architecture == "llama" else np.arange(len(parameter))
        values = parameter.numpy()[order]
        stored = GgmlType.F32 if values.ndim == 1 else kind
        data = _random_blocks(values.shape, kind) if stored in HALVES else gguf.quants.quantize(values, stored)
        writer.add_tensor(_gguf_name(name), data, raw_dtype=stored)
        parameter[torch.from_numpy(order)] = torch.from_numpy(gguf.quants.dequantize(data, stored).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(writer: gguf.GGUFWriter, model: PreTrainedModel) -> None:
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)


def _gguf_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _file_order(name: str, parameter: torch.Tensor, model: PreTrainedModel) -> np.ndarray:
    """Which row of the model each row of the file is: `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    rows = np.arange(len(parameter))
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    count = heads.get(name.split(".")[-2])
    return rows if count is None else rows.reshape(count, 2, -1).swapaxes(1, 2).reshape(-1)


def _random_blocks(shape: tuple[int, ...], kind: GgmlType) -> np.ndarray:
    """Random bytes that are valid blocks: every bit pattern is, once the float16 scales are small numbers."""
    random = np.random.default_rng(0)
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // block_size, block_bytes), dtype=np.uint8)
    for offset in HALVES[kind]:
        scales = random.uniform(1e-4, 1e-3, blocks.shape[:-1]).astype(np.float16)
        blocks[..., offset : offset + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)
