"""How many bytes a model takes, part by part: weights, activations, KV cache. All sizes in bytes.

Written for any outline; of the engine's `ModelShape` that is `outline_of`.
"""

from typing import Final

from headrace.planner.formats import WeightScheme
from headrace.planner.outline.matrix import Matrix
from headrace.planner.outline.mixers import DeltaNet, LatentAttention
from headrace.planner.outline.model import ModelOutline

GIB: Final = 2**30

_FP32_BYTES = 4
_SAMPLING_COPIES = 4
"""Logits, the scaled ones, their probabilities and the running sum of these, where a row draws from all tokens."""
_UNPACKED_BYTES = {"int8": (4, 4), "int4": (8, 4)}
"""Scheme -> bytes an element of a linear layer, and of the head, while torch multiplies by it."""
_WITHOUT_ROTARY = ("bloom",)
_CPU_KV_LIMIT_BYTES = 4 * GIB


def scheme_bytes(outline: ModelOutline, scheme: WeightScheme, num_shards: int = 1) -> int:
    """What the weights of a model take in a scheme on each of `num_shards` GPUs, with scales and zero points."""
    split = outline.tie_word_embeddings and scheme.splits_tie
    head = (_head(outline),) if split else ()
    return sum(-(-scheme.nbytes(matrix) // matrix.shards(num_shards)) for matrix in (*outline.matrices, *head))


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


def rotary_bytes(outline: ModelOutline, num_positions: int) -> int:
    """The fp32 cosines and sines of every position; nothing where positions are learned or biases."""
    if outline.num_positions or outline.model_type in _WITHOUT_ROTARY or not outline.attention_layers:
        return 0
    mixer = outline.attention_layers[0]
    rotated = mixer.rope_dim if isinstance(mixer, LatentAttention) else mixer.head_dim
    return num_positions * rotated * _FP32_BYTES


def token_bytes(outline: ModelOutline, dtype_bytes: int, num_shards: int = 1) -> int:
    """The peak of one token: the fp32 residual, a layer's input and its norm, and the larger of attention and MLP."""
    inside = max(layer.width for layer, _ in outline.kinds)
    return outline.hidden_size * (_FP32_BYTES + 2 * dtype_bytes) + inside // num_shards * dtype_bytes


def logits_bytes(outline: ModelOutline, num_rows: int) -> int:
    """On a CPU: the fp32 logits of each sequence, and what sampling makes of them."""
    return _SAMPLING_COPIES * num_rows * outline.vocab_size * _FP32_BYTES


def unpacked_bytes(outline: ModelOutline, scheme: WeightScheme) -> int:
    """The floats that a GPU makes of the largest linear layer when it multiplies by weights of 4 or 8 bits.

    Gate and up are one layer.
    """
    each = _UNPACKED_BYTES.get(scheme.name)
    if each is None:
        return 0
    return max(
        matrix.elements // matrix.count * (2 if matrix.name == "gate_proj" else 1) * each[matrix.role == "head"]
        for matrix in (*outline.matrices, _head(outline))
        if matrix.role in ("linear", "head")
    )


def cpu_kv_budget(available_bytes: int) -> int:
    """The KV cache's share on a CPU when nobody said: the smaller of 4 GiB and a quarter of the free memory."""
    return min(_CPU_KV_LIMIT_BYTES, available_bytes // 4)


def _head(outline: ModelOutline) -> Matrix:
    return Matrix("lm_head", outline.vocab_size, outline.hidden_size, "head")
