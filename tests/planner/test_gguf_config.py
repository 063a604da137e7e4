"""Shapes out of GGUF headers: the embedded model's, and files written by the gguf package."""

import math
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from headrace.core.errors import HeadraceError
from headrace.core.gguf_header import read_header
from headrace.planner.gguf_config import shape_from_gguf
from headrace.planner.llama3_factors import llama3_factors
from headrace.planner.shape import ModelShape, RopeScaling

Write = Callable[..., Path]

TENSORS = ("token_embd.weight", "output.weight", "blk.0.attn_q.weight")
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a GGUF file of a small model; `metadata` without the architecture's prefix, None to leave a key out."""

    def writer(
        arch: str = "llama",
        metadata: dict[str, object] | None = None,
        tensors: tuple[str, ...] = TENSORS,
        dtype: type = np.float16,
        rope_freqs: list[float] | None = None,
        tokenizer: dict[str, int] | None = None,
    ) -> Path:
        path = tmp_path / "model.gguf"
        out = gguf.GGUFWriter(path, arch)
        values: dict[str, object] = {
            "block_count": 2,
            "context_length": 4096,
            "embedding_length": 32,
            "feed_forward_length": 64,
            "attention.head_count": 4,
            "attention.layer_norm_rms_epsilon": 1e-5,
        }
        for key, value in (values | (metadata or {})).items():
            add = {int: out.add_uint32, float: out.add_float32, str: out.add_string, list: out.add_array}
            if value is not None:
                add[type(value)](f"{arch}.{key}", value)
        for key, token in (tokenizer or {}).items():
            out.add_uint32(f"tokenizer.ggml.{key}", token)
        for name in tensors:
            out.add_tensor(name, np.zeros((48, 32), dtype))
        if rope_freqs is not None:
            out.add_tensor("rope_freqs.weight", np.array(rope_freqs, np.float32))
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()
        return path

    return writer


def shape_of(path: Path) -> ModelShape:
    """The shape of a file."""
    return shape_from_gguf(read_header(path))


def refused(path: Path) -> HeadraceError:
    """The error for a file that must be refused."""
    with pytest.raises(HeadraceError) as caught:
        shape_of(path)
    assert caught.value.fix
    return caught.value


def test_the_embedded_model(smollm2_gguf: Path) -> None:
    shape = shape_of(smollm2_gguf)
    assert shape.rms_norm_eps == pytest.approx(1e-5)
    assert shape == ModelShape(
        architecture="LlamaForCausalLM",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        rms_norm_eps=shape.rms_norm_eps,
        rope_theta=100000.0,
        tie_word_embeddings=True,
        dtype="bfloat16",
        eos_token_ids=(2,),
        bos_token_id=1,
    )


@pytest.mark.parametrize(
    ("arch", "architecture"),
    [("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")],
)
def test_architectures(write: Write, arch: str, architecture: str) -> None:
    assert shape_of(write(arch)).architecture == architecture


def test_what_the_tensors_tell(write: Write) -> None:
    shape = shape_of(write())
    assert (shape.vocab_size, shape.tie_word_embeddings) == (48, False)
    assert (shape.qkv_bias, shape.output_bias, shape.mlp_bias, shape.qk_norm) == (False,) * 4
    names = ("attn_q.bias", "attn_output.bias", "ffn_up.bias", "attn_q_norm.weight")
    shape = shape_of(write(tensors=("token_embd.weight", *(f"blk.0.{name}" for name in names))))
    assert shape.tie_word_embeddings
    assert (shape.qkv_bias, shape.output_bias, shape.mlp_bias, shape.qk_norm) == (True,) * 4


def test_heads(write: Write) -> None:
    metadata = {"attention.head_count_kv": 2, "attention.key_length": 16, "attention.value_length": 16}
    shape = shape_of(write(metadata=metadata))
    assert (shape.num_heads, shape.num_kv_heads, shape.head_dim) == (4, 2, 16)
    shape = shape_of(write(metadata={"attention.head_count_kv": [2, 2]}))
    assert (shape.num_kv_heads, shape.head_dim) == (2, 8)
    assert shape_of(write()).num_kv_heads == 4


def test_ends_of_text(write: Write) -> None:
    shape = shape_of(write(tokenizer={"eos_token_id": 7, "eot_token_id": 9, "eom_token_id": 7, "bos_token_id": 1}))
    assert (shape.eos_token_ids, shape.bos_token_id) == ((7, 9), 1)


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "float32"), (np.float16, "float16")])
def test_dtype_of_a_float_file(write: Write, dtype: type, name: str) -> None:
    assert shape_of(write(dtype=dtype)).dtype == name


def test_rope_scalings(write: Write) -> None:
    assert shape_of(write(metadata={"rope.freq_base": 5e5})).rope_theta == 5e5
    linear = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    assert shape_of(write(metadata=linear)).rope_scaling == RopeScaling("linear", 4.0)
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 1024}
    assert shape_of(write(metadata=yarn)).rope_scaling == RopeScaling("yarn", 4.0, 1024)
    scaled = shape_of(write(metadata=yarn | {"rope.scaling.attn_factor": 0.5})).rope_scaling
    assert scaled.attention_factor == pytest.approx(0.5 * (1 + 0.1 * math.log(4)))
    assert shape_of(write(metadata={"rope.scaling.type": "none"})).rope_scaling == RopeScaling()


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(("high", "original"), [(4.0, 8192), (3.0, 4096)])
def test_llama3_is_recognised_by_its_factors(
    write: Write, factor: float, head_dim: int, high: float, original: int
) -> None:
    """The divisors are computed as llama.cpp's converter does: plain frequencies over transformers' scaled ones."""
    rope = LLAMA3 | {"factor": factor, "high_freq_factor": high, "original_max_position_embeddings": original}
    config = transformers.LlamaConfig(head_dim=head_dim, rope_parameters=rope | {"rope_theta": 5e5})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / (5e5 ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    metadata = {"rope.freq_base": 5e5, "attention.key_length": head_dim, "attention.value_length": head_dim}
    shape = shape_of(write(metadata=metadata, rope_freqs=(plain / scaled).tolist()))
    assert shape.rope_scaling == RopeScaling("llama3", factor, original, low_freq_factor=1.0, high_freq_factor=high)


def test_rope_factors_of_one_are_no_scaling(write: Write) -> None:
    assert shape_of(write(rope_freqs=[1.0] * 4)).rope_scaling == RopeScaling()


@pytest.mark.parametrize("factors", [[1.0, 2.0, 1.0, 2.0], [1.0, 1.5, 1.2, 3.0], [2.0] * 4])
def test_rope_factors_of_another_rule_are_refused(write: Write, factors: list[float]) -> None:
    assert "rope_freqs.weight" in refused(write(rope_freqs=factors)).what


def test_factors_that_only_look_like_llama3_are_refused(write: Write) -> None:
    factors = llama3_factors(RopeScaling("llama3", 8.0, 8192), 5e5, 32)
    between = [index for index, factor in enumerate(factors) if 1 < factor < 8]
    factors[between[1]] *= 1.05
    metadata = {"rope.freq_base": 5e5, "attention.key_length": 64, "attention.value_length": 64}
    assert "rope_freqs.weight" in refused(write(metadata=metadata, rope_freqs=factors)).what


@pytest.mark.parametrize("arch", ["phi3", "gemma2"])
def test_an_unsupported_architecture_names_those_that_are(write: Write, arch: str) -> None:
    error = refused(write(arch))
    assert arch in error.what
    for served in ("llama", "qwen2", "qwen3"):
        assert served in error.rule


def test_missing_metadata_is_all_named(write: Write) -> None:
    error = refused(write(metadata={"block_count": None, "attention.head_count": None}))
    assert "block_count, attention.head_count" in error.what


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"expert_count": 8}, "8 experts"),
        ({"attention.head_count_kv": [4, 2]}, "attention.head_count_kv"),
        ({"rope.dimension_count": 4}, "rope.dimension_count"),
        ({"attention.value_length": 4}, "attention.value_length"),
        ({"rope.scaling.type": "longrope"}, "'longrope'"),
        ({"attention.head_count_kv": 3}, "3 key-value heads"),
        ({"embedding_length": 0}, "embedding_length"),
    ],
    ids=str,
)
def test_what_is_not_served_is_named(write: Write, metadata: dict[str, object], named: str) -> None:
    assert named in refused(write(metadata=metadata)).what


def test_a_file_without_an_embedding_table(write: Write) -> None:
    assert "token_embd.weight" in refused(write(tensors=("output.weight",))).what
