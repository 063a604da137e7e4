"""From files to a decoder that is ready to run, one layer at a time: peak memory is the final size and one layer."""

from collections.abc import Callable, Iterable

import torch

from headrace.core.config import Quantization
from headrace.kernels.ops import Ops
from headrace.models.decoder import Decoder, DecoderLayer
from headrace.models.forms import Form, LinearBuilder
from headrace.models.open import open_checkpoint
from headrace.models.rope import cos_sin_table
from headrace.models.tensor_names import EMBEDDING, FINAL_NORM, HEAD, check_tensors, count_parameters, layer_prefix
from headrace.planner.shape import ModelShape
from headrace.store.files import ModelFiles

_SMALL_MODEL_PARAMETERS = 1_000_000_000


def load_model(
    files: ModelFiles,
    shape: ModelShape,
    ops: Ops,
    *,
    dtype: torch.dtype,
    quantization: Quantization,
    device: torch.device,
    max_model_len: int,
    seed: int = 0,
    watched: Callable[[range], Iterable[int]] = iter,
) -> Decoder:
    """Load, cast and, where `quantization` says so, quantize a model.

    "auto" keeps the 4-bit groups that a GGUF has, with an int8 head, and all else dense; "int4" also rounds
    unquantized linears to groups of 32, and makes a GGUF's other types int8. Norms, biases and the embedding table
    stay in `dtype`. `seed` is that of weights that are made up ("dummy" files). Raises `HeadraceError` for a checkpoint
    that is broken or not of this shape. The layers' numbers are taken from `watched`, which may show how far it is.
    """
    checkpoint = open_checkpoint(files, shape, seed)
    check_tensors(checkpoint, shape)
    builder = LinearBuilder(checkpoint, ops, quantization, dtype, device)
    layers = [_load_layer(builder, shape, layer) for layer in watched(range(shape.num_layers))]
    embedding, final_norm = builder.tensor([EMBEDDING]), builder.tensor([FINAL_NORM])
    head = builder.tied_head(EMBEDDING, embedding) if shape.tie_word_embeddings else builder.head(HEAD)
    cos_sin = cos_sin_table(shape, max_model_len, device)
    nbytes = sum(layer.nbytes for layer in layers) + sum(part.nbytes for part in (embedding, final_norm, cos_sin))
    return Decoder(
        shape,
        ops,
        embedding,
        layers,
        final_norm,
        head.linear,
        cos_sin,
        nbytes=nbytes + head.own_nbytes,
        summary=_summary(builder, head.form, shape, dtype),
    )


def _load_layer(builder: LinearBuilder, shape: ModelShape, layer: int) -> DecoderLayer:
    prefix = layer_prefix(layer)
    attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
    return DecoderLayer(
        input_norm=builder.tensor([f"{prefix}input_layernorm.weight"]),
        qkv=builder.linear(attention, ("q_proj", "k_proj", "v_proj"), bias=shape.qkv_bias),
        output=builder.linear(attention, ("o_proj",), bias=shape.output_bias),
        mlp_norm=builder.tensor([f"{prefix}post_attention_layernorm.weight"]),
        gate_up=builder.linear(mlp, ("gate_proj", "up_proj"), bias=shape.mlp_bias),
        down=builder.linear(mlp, ("down_proj",), bias=shape.mlp_bias),
        q_norm=builder.tensor([f"{attention}q_norm.weight"]) if shape.qk_norm else None,
        k_norm=builder.tensor([f"{attention}k_norm.weight"]) if shape.qk_norm else None,
        window=shape.window(layer),
    )


def _summary(builder: LinearBuilder, head_form: Form, shape: ModelShape, dtype: torch.dtype) -> list[tuple[str, str]]:
    name = str(dtype).removeprefix("torch.")
    words: dict[Form, str] = {
        "dense": name,
        "int8": "int8, one scale an output channel",
        "int4 as in the file": "int4 in groups of 32, the file's own bits",
        "int4 rounded": "int4 in groups of 32, rounded to nearest",
    }
    lines = [
        ("linears", "; ".join(f"{count} {words[form]}" for form, count in builder.counts.most_common())),
        ("head", words[head_form]),
        ("embedding and norms", name),
    ]
    if builder.counts["int4 rounded"] and count_parameters(shape) < _SMALL_MODEL_PARAMETERS:
        lines.append(("warning", "rounding to 4 bits costs a model this small much quality; int8 costs little"))
    return lines
