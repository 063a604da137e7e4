"""GGUF checkpoints against transformers: the embedded model, and small files of every type and architecture."""

from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as GgmlType
from gguf_files import write_gguf
from model_parity import PagedRun, load, random_tokens, reference_logprobs, save_random_model
from transformers import LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from headrace.core.gguf_header import read_header
from headrace.kernels.ops import Int4Groups
from headrace.kernels.torch_linear import dequantize_groups
from headrace.models.gguf_reader import GgufCheckpoint
from headrace.models.open import shape_of
from headrace.store.local import open_path

SIZES = {
    "vocab_size": 96,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES, attention_bias=True),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
}
TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
CASES = [("llama", kind) for kind in TYPES] + [("qwen2", "Q4_1"), ("qwen3", "Q4_1")]


@pytest.mark.parametrize(("architecture", "kind"), CASES)
def test_every_type_equals_its_dequantized_values(architecture: str, kind: str, tmp_path: Path) -> None:
    model = save_random_model(CONFIGS[architecture], tmp_path)
    path = tmp_path / "model.gguf"
    write_gguf(path, model, architecture, GgmlType[kind])
    tokens = random_tokens(20, SIZES["vocab_size"])
    decoder = load(open_path("tiny", path))
    torch.testing.assert_close(
        PagedRun(decoder).step({0: tokens})[0], reference_logprobs(model, tokens), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q4_K"])
def test_groups_are_the_files_own_bits(kind: str, tmp_path: Path) -> None:
    """Multiplied out, the 4-bit groups are what the gguf package dequantizes, to the last bit but Q4_0's zero point."""
    path = tmp_path / "model.gguf"
    write_gguf(path, save_random_model(CONFIGS["llama"], tmp_path), "llama", GgmlType[kind])
    checkpoint = GgufCheckpoint(read_header(path), shape_of(open_path("tiny", path)))
    name = "model.layers.0.self_attn.k_proj.weight"
    values = torch.empty(checkpoint.info(name).shape)
    checkpoint.copy_rows(name, 0, values)
    rows, columns = values.shape
    groups = Int4Groups(torch.empty(rows, columns, dtype=torch.uint8), *torch.empty(2, rows, columns // 32))
    checkpoint.copy_groups(name, 0, groups)
    assert checkpoint.int4_group_size(name) == 32
    torch.testing.assert_close(dequantize_groups(groups), values, rtol=1e-6, atol=1e-7)


def test_auto_computes_with_the_files_own_4_bit_groups(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = save_random_model(CONFIGS["llama"], tmp_path)
    write_gguf(path, model, "llama", GgmlType.Q4_1)
    decoder = load(open_path("tiny", path), quantization="int4")
    assert dict(decoder.summary)["linears"] == "8 int4 in groups of 32, the file's own bits"
    tokens = random_tokens(20, SIZES["vocab_size"])
    torch.testing.assert_close(
        PagedRun(decoder).step({0: tokens})[0], reference_logprobs(model, tokens), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "quantization", "linears", "head"),
    [
        ("Q8_0", "auto", "float32", "float32"),
        ("Q4_0", "auto", "float32", "float32"),
        ("Q8_0", "int4", "int8", "int8"),
        ("Q6_K", "int8", "int8", "int8"),
        ("Q4_0", "int8", "int8", "int8"),
        ("Q4_K", "int4", "the file's own bits", "the file's own bits"),
        ("F16", "int4", "rounded", "int8"),
        ("Q4_0", "none", "float32", "float32"),
    ],
)
def test_what_becomes_of_each_type(kind: str, quantization: str, linears: str, head: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, save_random_model(CONFIGS["llama"], tmp_path), "llama", GgmlType[kind])
    summary = dict(load(open_path("tiny", path), quantization=quantization).summary)
    assert linears in summary["linears"]
    assert head in summary["head"]


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, save_random_model(CONFIGS["qwen3"], tmp_path), "qwen3", GgmlType.Q8_0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short"):
        load(open_path("tiny", path))


def test_embedded_model_equals_transformers(smollm2_gguf: Path, smollm2_of_transformers: PreTrainedModel) -> None:
    """The real file, in float32, read by transformers' own GGUF loader."""
    model = smollm2_of_transformers
    run = PagedRun(load(open_path("smollm2", smollm2_gguf)), rows=2)
    for row, length in enumerate((12, 40)):
        tokens = random_tokens(length, model.config.vocab_size, seed=row)
        torch.testing.assert_close(run.step({row: tokens})[row], reference_logprobs(model, tokens), rtol=0, atol=1e-4)


def test_gguf_package_is_the_reference_for_values(tmp_path: Path) -> None:
    """Rows from the middle of a tensor, in an order of our own, are the package's values."""
    path = tmp_path / "model.gguf"
    write_gguf(path, save_random_model(CONFIGS["qwen2"], tmp_path), "qwen2", GgmlType.Q5_1)
    checkpoint = GgufCheckpoint(read_header(path), shape_of(open_path("tiny", path)))
    target = torch.empty(10, SIZES["hidden_size"])
    checkpoint.copy_rows("model.embed_tokens.weight", 7, target)
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight")
    assert torch.equal(target, torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type)[7:17]))
