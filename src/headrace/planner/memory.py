"""How many bytes a model takes, part by part: weights, activations, KV cache. All sizes in bytes.

Written for any outline; the engine's `ModelShape` is read as the outline that says the same.
"""

from dataclasses import replace
from typing import Final, Literal

from headrace.planner.formats import WeightScheme, engine_int4, engine_int8, float_scheme
from headrace.planner.outline.from_shape import outline_of
from headrace.planner.outline.matrix import Matrix
from headrace.planner.outline.mixers import DeltaNet
from headrace.planner.outline.model import ModelOutline
from headrace.planner.shape import ModelShape

GIB: Final = 2**30

Form = Literal["float32", "bfloat16", "float16", "int8", "int4"]
"""How the engine keeps the weight of a linear layer."""

_FP32_BYTES = 4
_SAMPLING_COPIES = 4
"""Logits, the scaled ones, their probabilities and the running sum of these, where a row draws from all tokens."""
_CPU_KV_LIMIT_BYTES = 4 * GIB


def weight_bytes(shape: ModelShape, form: Form, float_bytes: int | None = None, *, packs_head: bool = False) -> int:
    """What the weights take once the engine has loaded them.

    In int8 and int4 the embedding table stays a float of `float_bytes` (2 unless given), so that a tied model keeps
    both; and so it does where dense kernels lay the head out in their own order (`packs_head`), as on a CPU.
    """
    plain = "float32" if float_bytes == 4 else "bfloat16"
    if form == "int8":
        return scheme_bytes(outline_of(shape), engine_int8(plain))
    if form == "int4":
        return scheme_bytes(outline_of(shape), engine_int4(plain))
    return scheme_bytes(outline_of(shape), replace(float_scheme(form), splits_tie=packs_head))


def rope_table_bytes(shape: ModelShape, num_positions: int) -> int:
    """The fp32 cosines and sines of every position."""
    return num_positions * shape.head_dim * _FP32_BYTES


def scheme_bytes(outline: ModelOutline, scheme: WeightScheme, num_shards: int = 1) -> int:
    """What the weights of a model take in a scheme on each of `num_shards` GPUs, with scales and zero points."""
    split = outline.tie_word_embeddings and scheme.splits_tie
    head = (Matrix("lm_head", outline.vocab_size, outline.hidden_size, "head"),) if split else ()
    return sum(-(-scheme.nbytes(matrix) // matrix.shards(num_shards)) for matrix in (*outline.matrices, *head))


def kv_block_bytes(shape: ModelShape, block_size: int, dtype_bytes: int) -> int:
    """Keys and values of one block of `block_size` tokens, over all layers."""
    return block_size * kv_bytes_per_token(outline_of(shape), dtype_bytes)


def kv_bytes_per_token(outline: ModelOutline, dtype_bytes: int, num_shards: int = 1) -> int:
    """What one token keeps over all layers, on each of `num_shards` GPUs."""
    return dtype_bytes * sum(mixer.kv_elements(num_shards) for mixer in outline.attention_layers)


def ideal_kv_bytes(outline: ModelOutline, num_tokens: int, dtype_bytes: int, num_shards: int = 1) -> int:
    """What one sequence must keep: a layer with a window only its last tokens, a linear layer only its state."""
    kept = sum(
        mixer.kv_elements(num_shards) * min(num_tokens, mixer.window or num_tokens)
        for mixer in outline.attention_layers
    )
    return kept * dtype_bytes + state_bytes(outline, dtype_bytes, num_shards)


def state_bytes(outline: ModelOutline, dtype_bytes: int, num_shards: int = 1) -> int:
    """What one sequence keeps whatever its length: the states of linear attention."""
    mixers = (layer.mixer for layer in outline.layers)
    return sum(mixer.state_bytes(dtype_bytes, num_shards) for mixer in mixers if isinstance(mixer, DeltaNet))


def activation_bytes(shape: ModelShape, max_num_batched_tokens: int, max_num_seqs: int, dtype_bytes: int) -> int:
    """What one step needs at its peak: activations of all tokens or, after these are let go, logits and sampling."""
    outline = outline_of(shape)
    hidden = max_num_batched_tokens * shape.hidden_size * dtype_bytes
    return max(max_num_batched_tokens * token_bytes(outline, dtype_bytes), hidden + logits_bytes(outline, max_num_seqs))


def token_bytes(outline: ModelOutline, dtype_bytes: int, num_shards: int = 1) -> int:
    """The peak of one token: the fp32 residual, a layer's input and its norm, and the larger of attention and MLP."""
    inside = max(layer.width for layer, _ in outline.kinds)
    return outline.hidden_size * (_FP32_BYTES + 2 * dtype_bytes) + inside // num_shards * dtype_bytes


def logits_bytes(outline: ModelOutline, num_rows: int) -> int:
    """The fp32 logits of each sequence, and what sampling makes of them."""
    return _SAMPLING_COPIES * num_rows * outline.vocab_size * _FP32_BYTES


def cpu_kv_budget(available_bytes: int) -> int:
    """The KV cache's share on a CPU when nobody said: the smaller of 4 GiB and a quarter of the free memory."""
    return min(_CPU_KV_LIMIT_BYTES, available_bytes // 4)
