"""Bytes of quantized weights, against the published layouts and against the gguf package's own quantizer."""

import gguf
import numpy as np
import pytest

from headrace.core.errors import HeadraceError
from headrace.planner.catalogue import find_known
from headrace.planner.formats import GGUF_NAMES, QUANTIZATIONS, Format, grouped, scheme_named
from headrace.planner.memory import scheme_bytes
from headrace.planner.outline.from_config import outline_from_config
from headrace.planner.outline.matrix import Matrix
from headrace.planner.quantized_config import scheme_of_config


def size_of(name: str, quantization: str) -> int:
    """Bytes of a model of the catalogue."""
    known = find_known(name)
    assert known is not None
    return scheme_bytes(outline_from_config(known.config), scheme_named(quantization, "bfloat16"))


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("Qwen/Qwen3-0.6B", 0.54),
        ("Qwen/Qwen2.5-0.5B", 0.46),
        ("Qwen/Qwen2.5-1.5B", 1.15),
        ("Qwen/Qwen2.5-7B", 5.57),
        ("meta-llama/Llama-2-7b-hf", 3.89),
        ("meta-llama/Llama-2-13b-hf", 7.25),
        ("meta-llama/Meta-Llama-3-8B", 5.73),
        ("meta-llama/Meta-Llama-3-70B", 39.8),
        ("meta-llama/Llama-3.1-405B", 217),
    ],
)
def test_four_bits_in_groups_of_128(name: str, gigabytes: float) -> None:
    assert size_of(name, "awq") / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_awq_and_gptq_tensors() -> None:
    """AutoAWQ: qweight [in, out/8] int32, qzeros [in/g, out/8] int32, scales [in/g, out] fp16; GPTQ: g_idx too."""
    matrix = Matrix("q_proj", rows=512, columns=256)
    awq = 256 * 512 // 8 * 4 + 2 * 512 // 8 * 4 + 2 * 512 * 2
    assert grouped("awq", 4, 128, zeros=True).nbytes(matrix) == awq
    assert grouped("gptq", 4, 128, zeros=True, order=True).nbytes(matrix) == awq + 256 * 4
    whole_rows = 256 * 512 // 2 + 512 * 2
    assert grouped("w4", 4, -1, zeros=False).nbytes(matrix) == whole_rows


def test_block_scales_of_ragged_tiles() -> None:
    fp8 = Format("fp8", 8, tile_bytes=4)
    assert fp8.nbytes(Matrix("w", 300, 129), 2) == 300 * 129 + 3 * 2 * 4


@pytest.mark.parametrize("name", GGUF_NAMES)
def test_gguf_types_are_those_of_the_gguf_package(name: str) -> None:
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]]
    linear = scheme_named(name, "bfloat16").linear
    assert linear.nbytes(Matrix("w", 2, 10 * block_size), 4) == 2 * 10 * block_bytes


def test_a_quantized_matrix_is_as_large_as_planned() -> None:
    packed = gguf.quants.quantize(np.ones((48, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    assert scheme_named("q8_0", "bfloat16").nbytes(Matrix("w", 48, 64)) == packed.nbytes


def test_deepseek_in_fp8_and_gpt_oss_in_mxfp4() -> None:
    """gpt-oss-20b's files hold 13.76 GB; DeepSeek-V3's 671 GB without its multi-token head."""
    assert size_of("openai/gpt-oss-20b", "mxfp4") / 1e9 == pytest.approx(13.76, rel=0.001)
    assert size_of("deepseek-ai/DeepSeek-V3", "fp8-block") / 1e9 == pytest.approx(673, rel=0.005)


@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_every_named_scheme_counts_a_model(name: str) -> None:
    assert 0 < size_of("Qwen/Qwen3-0.6B", name) <= size_of("Qwen/Qwen3-0.6B", "none") * 1.01


def test_an_unknown_scheme_names_those_that_are_known() -> None:
    with pytest.raises(HeadraceError) as caught:
        scheme_named("q9", "bfloat16")
    assert "q4_k" in caught.value.rule


WEIGHTS = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": 64}, 8 + 24 / 64 + 32 / 512),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 16384),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": WEIGHTS}}}, 4 + 16 / 32),
    ],
    ids=lambda value: str(value["quant_method"]) if isinstance(value, dict) else str(value),
)
def test_schemes_of_quantized_checkpoints(quantization: dict[str, object], bits: float) -> None:
    scheme, notes = scheme_of_config({"quantization_config": quantization})
    assert scheme is not None
    assert notes == ()
    assert scheme.nbytes(Matrix("w", 512, 1024)) * 8 / (512 * 1024) == pytest.approx(bits)


def test_a_method_that_is_not_known_is_noted() -> None:
    assert scheme_of_config({}) == (None, ())
    scheme, notes = scheme_of_config({"quantization_config": {"quant_method": "frob"}})
    assert scheme is None
    assert "'frob'" in notes[0]
