"""Which tensors a model of a given shape has, by Hugging Face's names; the check of a checkpoint against that list."""

import math
import re

from headrace.core.errors import HeadraceError
from headrace.models.checkpoint import Checkpoint
from headrace.planner.shape import ModelShape

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_HARMLESS = re.compile(r"\.(rotary_emb\.inv_freq|k_scale|v_scale)$")
_FOREIGN = {
    ".qweight": "AWQ or GPTQ",
    ".qzeros": "AWQ or GPTQ",
    ".weight_packed": "compressed-tensors",
    ".weight_scale": "compressed-tensors or fp8",
    ".weight_scale_inv": "fp8",
    ".SCB": "bitsandbytes",
    ".absmax": "bitsandbytes",
}


def layer_prefix(layer: int) -> str:
    """What the names of a layer's tensors begin with."""
    return f"model.layers.{layer}."


def expected_tensors(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Every tensor that the model needs, with its shape."""
    expected = {EMBEDDING: (shape.vocab_size, shape.hidden_size), FINAL_NORM: (shape.hidden_size,)}
    if not shape.tie_word_embeddings:
        expected[HEAD] = (shape.vocab_size, shape.hidden_size)
    for layer in range(shape.num_layers):
        prefix = layer_prefix(layer)
        expected |= {prefix + name: size for name, size in _layer_tensors(shape).items()}
    return expected


def count_parameters(shape: ModelShape) -> int:
    """Parameters of the model; a tied head counts once."""
    return sum(math.prod(size) for size in expected_tensors(shape).values())


def _layer_tensors(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """The tensors of one layer, without their prefix."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    linears = {
        "self_attn.q_proj": (shape.q_size, hidden, shape.qkv_bias),
        "self_attn.k_proj": (shape.kv_size, hidden, shape.qkv_bias),
        "self_attn.v_proj": (shape.kv_size, hidden, shape.qkv_bias),
        "self_attn.o_proj": (hidden, shape.q_size, shape.output_bias),
        "mlp.gate_proj": (inner, hidden, shape.mlp_bias),
        "mlp.up_proj": (inner, hidden, shape.mlp_bias),
        "mlp.down_proj": (hidden, inner, shape.mlp_bias),
    }
    tensors: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    if shape.qk_norm:
        tensors |= {f"self_attn.{part}_norm.weight": (shape.head_dim,) for part in "qk"}
    for name, (rows, columns, bias) in linears.items():
        tensors[f"{name}.weight"] = (rows, columns)
        if bias:
            tensors[f"{name}.bias"] = (rows,)
    return tensors


def check_tensors(checkpoint: Checkpoint, shape: ModelShape) -> None:
    """Raise `HeadraceError` unless the checkpoint holds this model: no tensor missing, misshapen or misunderstood."""
    expected = expected_tensors(shape)
    for name in checkpoint.names:
        if name not in expected:
            _refuse_foreign(name, shape, checkpoint.info(name).file)
    for name, size in expected.items():
        found = checkpoint.info(name)
        if found.shape != size:
            raise HeadraceError(
                f"Tensor {name} in {found.file} has shape {list(found.shape)}",
                rule=f"The model's config makes it {list(size)}",
                fix="Use the config.json that belongs to these weights",
                param="model",
            )


def _refuse_foreign(name: str, shape: ModelShape, file: str) -> None:
    """Raise if leaving this tensor out would change what the model computes."""
    for suffix, method in _FOREIGN.items():
        if name.endswith(suffix):
            raise HeadraceError(
                f"Tensor {name} in {file} belongs to a checkpoint quantized with {method}",
                rule="Reading that format is not built yet",
                fix="Use the unquantized model, with quantization='int8' or 'int4'",
                param="model",
            )
    if ".lora_" in name:
        raise HeadraceError(
            f"Tensor {name} in {file} belongs to a LoRA adapter",
            rule="A model is served from its own full weights",
            fix="Merge the adapter into its base model with peft's merge_and_unload, and serve the result",
            param="model",
        )
    layer = _LAYER.match(name)
    if layer and int(layer[1]) < shape.num_layers and not _HARMLESS.search(name):
        raise HeadraceError(
            f"Tensor {name} in {file} is not one that {shape.architecture} has",
            rule="Leaving it out would change what the model computes",
            fix="Use the config.json that belongs to these weights",
            param="model",
        )
