"""The shape of a model from the header of its GGUF file. Mistral files say "llama", as llama.cpp writes them."""

import math
from collections.abc import Mapping
from typing import Final

from headrace.core.errors import HeadraceError
from headrace.core.gguf_header import GgufHeader
from headrace.planner.families import unsupported_architecture
from headrace.planner.fields import Fields
from headrace.planner.hf_config import check_heads
from headrace.planner.llama3_factors import scaling_from_factors
from headrace.planner.rope import DEFAULT_THETA, unserved_rope
from headrace.planner.shape import ModelShape, RopeScaling

ARCHITECTURES: Final[Mapping[str, str]] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""The GGUF architectures that are served, and the Hugging Face ones they are."""

_FLOAT_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_ROPE_FREQS = "rope_freqs.weight"
_END_TOKENS = ("eos", "eot", "eom")


def shape_from_gguf(header: GgufHeader) -> ModelShape:
    """The shape that a GGUF header describes. Raises `HeadraceError` for a model that is not served.

    `dtype` is that of the embedding table where it is a float, else bfloat16: what activations are computed in.
    """
    fields = _fields(header)
    fields.require(
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    )
    num_layers, num_heads = fields.size("block_count"), fields.size("attention.head_count")
    rope_theta = fields.number("rope.freq_base", DEFAULT_THETA)
    shape = ModelShape(
        architecture=ARCHITECTURES[str(header.scalars["general.architecture"])],
        vocab_size=_embedding_shape(header)[0],
        hidden_size=fields.size("embedding_length"),
        intermediate_size=fields.size("feed_forward_length"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=fields.size("attention.head_count_kv", num_heads),
        head_dim=_head_dim(fields, num_heads),
        max_position_embeddings=fields.size("context_length"),
        rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        rope_theta=rope_theta,
        rope_scaling=_rope_scaling(header, fields, rope_theta),
        tie_word_embeddings=_HEAD not in header.tensors,
        qkv_bias="blk.0.attn_q.bias" in header.tensors,
        output_bias="blk.0.attn_output.bias" in header.tensors,
        mlp_bias="blk.0.ffn_up.bias" in header.tensors,
        qk_norm="blk.0.attn_q_norm.weight" in header.tensors,
        sliding_windows=_sliding_windows(fields, num_layers),
        dtype=_FLOAT_DTYPES.get(header.tensors[_EMBEDDING].type.name, "bfloat16"),
        eos_token_ids=_end_tokens(header),
        bos_token_id=next(iter(_tokenizer(header).token_ids("bos_token_id")), None),
    )
    check_heads(shape, fields.source)
    return shape


def _fields(header: GgufHeader) -> Fields:
    """The metadata under the architecture's own prefix; arrays of equal numbers stand for that number."""
    architecture = header.scalars.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise unsupported_architecture(str(architecture), [f"{name} (GGUF)" for name in ARCHITECTURES])
    prefix = f"{architecture}."
    values: dict[str, object] = {k.removeprefix(prefix): v for k, v in header.scalars.items() if k.startswith(prefix)}
    for key in header.arrays:
        if key.startswith(prefix):
            values[key.removeprefix(prefix)] = _one_number(header, key)
    if values.get("expert_count"):
        raise unsupported_architecture(f"a mixture of {values['expert_count']} experts", [*ARCHITECTURES.values()])
    return Fields(values, f"the {architecture} metadata of the GGUF file")


def _one_number(header: GgufHeader, key: str) -> object:
    """A value by layer is served where it is the same for each; otherwise it is left for its reader to refuse."""
    values = header.numbers(key)
    return values[0] if values and len(set(values)) == 1 else values


def _embedding_shape(header: GgufHeader) -> tuple[int, ...]:
    tensor = header.tensors.get(_EMBEDDING)
    if tensor is None or len(tensor.shape) != 2:
        raise HeadraceError(
            f"{header.path} has no tensor {_EMBEDDING} of two dimensions",
            rule="A language model has an embedding table",
            fix="Use a GGUF file of a whole model, not of an adapter, a projector or a vocabulary",
            param="model",
        )
    return tensor.shape


def _head_dim(fields: Fields, num_heads: int) -> int:
    head_dim = fields.size("attention.key_length", fields.size("embedding_length") // num_heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if fields.size(name, head_dim) != head_dim:
            raise fields.bad(name, f"the size of a head, {head_dim}: keys, values and rotation share one")
    return head_dim


def _rope_scaling(header: GgufHeader, fields: Fields, rope_theta: float) -> RopeScaling:
    kind = str(fields.get("rope.scaling.type") or "none")
    if _ROPE_FREQS in header.tensors:
        if kind != "none":
            raise unserved_rope(f"{kind} together with {_ROPE_FREQS}")
        return scaling_from_factors(header.floats(_ROPE_FREQS), rope_theta)
    if kind == "yarn":
        return _yarn(fields)
    if kind not in ("none", "linear"):
        raise unserved_rope(kind)
    factor = fields.number("rope.scaling.factor" if kind == "linear" else "rope.scale_linear", 1.0)
    return RopeScaling("linear", factor) if factor != 1 else RopeScaling()


def _yarn(fields: Fields) -> RopeScaling:
    """llama.cpp multiplies yarn's own attention factor, 1 + 0.1 ln(factor), by `attn_factor`."""
    factor = fields.number("rope.scaling.factor")
    extra = fields.number("rope.scaling.attn_factor", fields.number("rope.scaling.yarn_attn_factor", 1.0))
    return RopeScaling(
        "yarn",
        factor,
        original_max_position_embeddings=fields.size(
            "rope.scaling.original_context_length", fields.size("context_length")
        ),
        attention_factor=None if extra == 1 else extra * (1 + 0.1 * math.log(max(factor, 1.0))),
        beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0),
    )


def _sliding_windows(fields: Fields, num_layers: int) -> tuple[int | None, ...]:
    if not fields.get("attention.sliding_window"):
        return ()
    return (fields.size("attention.sliding_window"),) * num_layers


def _tokenizer(header: GgufHeader) -> Fields:
    prefix = "tokenizer.ggml."
    values = {key.removeprefix(prefix): value for key, value in header.scalars.items() if key.startswith(prefix)}
    return Fields(values, "the tokenizer metadata of the GGUF file")


def _end_tokens(header: GgufHeader) -> tuple[int, ...]:
    """The ids that end a text: end of sequence, of turn and of message, whichever the file names."""
    tokenizer = _tokenizer(header)
    found = [token for name in _END_TOKENS for token in tokenizer.token_ids(f"{name}_token_id")]
    return tuple(dict.fromkeys(found))
