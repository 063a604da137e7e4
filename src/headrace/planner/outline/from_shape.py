"""The outline of a model that the engine runs, from its `ModelShape`: one arithmetic for both."""

from headrace.planner.outline.feedforward import Mlp
from headrace.planner.outline.mixers import Attention
from headrace.planner.outline.model import Layer, ModelOutline
from headrace.planner.outline.positions import stretched
from headrace.planner.shape import ModelShape


def outline_of(shape: ModelShape) -> ModelOutline:
    """The outline that says the same as `shape`."""
    mlp = Mlp(shape.intermediate_size, bias=shape.mlp_bias)
    return ModelOutline(
        model_type=shape.architecture,
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        layers=tuple(Layer(_attention(shape, layer), mlp) for layer in range(shape.num_layers)),
        max_position_embeddings=shape.max_position_embeddings,
        longest_context=longest_context(shape),
        tie_word_embeddings=shape.tie_word_embeddings,
        dtype=shape.dtype,
    )


def longest_context(shape: ModelShape) -> int:
    """The tokens that the model's positions reach, stretched by its rope scaling."""
    rope = shape.rope_scaling
    return stretched(rope.kind, rope.factor, rope.original_max_position_embeddings, shape.max_position_embeddings)


def _attention(shape: ModelShape, layer: int) -> Attention:
    return Attention(
        shape.num_heads,
        shape.num_kv_heads,
        shape.head_dim,
        shape.window(layer),
        qkv_bias=shape.qkv_bias,
        output_bias=shape.output_bias,
        qk_norm="head" if shape.qk_norm else "none",
    )
