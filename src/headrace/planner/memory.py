"""How many bytes a model takes, part by part: weights, activations, KV cache. All sizes in bytes."""

from collections.abc import Mapping
from typing import Final, Literal

from headrace.planner.shape import ModelShape

GIB: Final = 2**30

Form = Literal["float32", "bfloat16", "float16", "int8", "int4"]
"""How the weight of a linear layer is kept."""

_BITS: Final[Mapping[Form, int]] = {"float32": 32, "bfloat16": 16, "float16": 16, "int8": 8, "int4": 5}
_INT8_SCALE_BYTES = 4
_LOGITS_BYTES = 4
_CPU_KV_LIMIT_BYTES = 4 * GIB


def linear_elements(shape: ModelShape) -> int:
    """Weights in the linear layers of all decoder layers, without embeddings and head."""
    attention = shape.hidden_size * (2 * shape.q_size + 2 * shape.kv_size)
    mlp = 3 * shape.hidden_size * shape.intermediate_size
    return shape.num_layers * (attention + mlp)


def weight_bytes(shape: ModelShape, form: Form, float_bytes: int | None = None) -> int:
    """What the weights take once loaded.

    int4 counts 5 bits a weight: groups of 32 with a 16-bit scale and minimum, as in Q4_1. In int8 and int4 the head is
    int8 and the embedding table stays a float of `float_bytes` (2 unless given), so that a tied model keeps both.
    """
    table = shape.vocab_size * shape.hidden_size
    float_bytes = 4 if form == "float32" else float_bytes or 2
    if form in ("int8", "int4"):
        head = table + shape.vocab_size * _INT8_SCALE_BYTES
    else:
        head = 0 if shape.tie_word_embeddings else table * float_bytes
    scales = _output_rows(shape) * _INT8_SCALE_BYTES if form == "int8" else 0
    linear = linear_elements(shape) * _BITS[form] // 8 + scales
    return linear + table * float_bytes + head + _vector_elements(shape) * float_bytes


def kv_block_bytes(shape: ModelShape, block_size: int, dtype_bytes: int) -> int:
    """Keys and values of one block of `block_size` tokens, over all layers."""
    return block_size * shape.kv_bytes_per_token(dtype_bytes)


def activation_bytes(shape: ModelShape, max_num_batched_tokens: int, max_num_seqs: int, dtype_bytes: int) -> int:
    """What one step needs at its peak.

    A token: residual and hidden state; the larger of the packed QKV with the attention's output, and gate, up and
    their product. A sequence: a row of fp32 logits, and one more for sampling.
    """
    attention = 2 * shape.q_size + 2 * shape.kv_size
    token = 2 * shape.hidden_size + max(attention, 3 * shape.intermediate_size)
    return max_num_batched_tokens * token * dtype_bytes + 2 * max_num_seqs * shape.vocab_size * _LOGITS_BYTES


def cpu_kv_budget(available_bytes: int) -> int:
    """The KV cache's share on a CPU when nobody said: the smaller of 4 GiB and a quarter of the free memory."""
    return min(_CPU_KV_LIMIT_BYTES, available_bytes // 4)


def _output_rows(shape: ModelShape) -> int:
    a_layer = shape.q_size + 2 * shape.kv_size + shape.hidden_size + 2 * shape.intermediate_size + shape.hidden_size
    return shape.num_layers * a_layer


def _vector_elements(shape: ModelShape) -> int:
    """Norm weights and biases."""
    a_layer = 2 * shape.hidden_size
    a_layer += 2 * shape.head_dim if shape.qk_norm else 0
    a_layer += shape.q_size + 2 * shape.kv_size if shape.qkv_bias else 0
    a_layer += shape.hidden_size if shape.output_bias else 0
    a_layer += 2 * shape.intermediate_size + shape.hidden_size if shape.mlp_bias else 0
    return shape.num_layers * a_layer + shape.hidden_size
