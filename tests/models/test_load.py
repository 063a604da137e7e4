"""Loading: shards, casts, quantization, memory, and what a checkpoint that is not this model's gets."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from model_parity import PagedRun, files_at, load, random_tokens, reference_logprobs, save_random_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, PreTrainedModel, Qwen2Config

from headrace.core.errors import HeadraceError
from headrace.models.dtype import resolve_dtype
from headrace.models.open import shape_of
from headrace.models.safetensors_reader import SafetensorsCheckpoint

CONFIG = LlamaConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=True,
)
TOKENS = random_tokens(20, 96)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[PreTrainedModel, Path]:
    return save_random_model(CONFIG, tmp_path), tmp_path


def rewrite(path: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Replace, add or (None) remove tensors of the saved model."""
    file = path / "model.safetensors"
    tensors = load_file(file) | change
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)


def test_shards_are_one_model(tmp_path: Path) -> None:
    model = save_random_model(CONFIG, tmp_path, max_shard_size="50KB")
    files = files_at(tmp_path)
    assert len(files.weight_files) > 2
    logprobs = PagedRun(load(files)).step({0: TOKENS})[0]
    torch.testing.assert_close(logprobs, reference_logprobs(model, TOKENS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_values_are_cast_from_the_files_dtype(stored: torch.dtype, saved: tuple[PreTrainedModel, Path]) -> None:
    model, path = saved
    rewrite(path, {name: value.to(stored) for name, value in load_file(path / "model.safetensors").items()})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(stored))
    logprobs = PagedRun(load(files_at(path), dtype=torch.float32)).step({0: TOKENS})[0]
    torch.testing.assert_close(logprobs, reference_logprobs(model, TOKENS), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("quantization", "worst"), [("int8", 0.02), ("int4", 0.2)])
def test_quantized_weights_stay_close(quantization: str, worst: float, tmp_path: Path) -> None:
    """Divergence from the exact distribution, in nats a token; 0 would mean that nothing was quantized."""
    model = save_random_model(CONFIG, tmp_path)
    ours = PagedRun(load(files_at(tmp_path), quantization=quantization)).step({0: TOKENS})[0]
    exact = reference_logprobs(model, TOKENS)
    divergence = (exact.exp() * (exact - ours)).sum(-1).mean()
    assert 0 < divergence < worst


def test_summary_says_what_each_part_became(saved: tuple[PreTrainedModel, Path]) -> None:
    _, path = saved
    summary = dict(load(files_at(path), quantization="int4", dtype=torch.bfloat16).summary)
    assert summary["linears"] == "8 int4 in groups of 32, rounded to nearest"
    assert summary["head"] == "int8, one scale an output channel"
    assert summary["embedding and norms"] == "bfloat16"
    assert "int8" in summary["warning"]


def test_nbytes_counts_a_shared_head_once(tmp_path: Path) -> None:
    tied = load(files_at(_saved(CONFIG, tmp_path / "tied")))
    untied_config = LlamaConfig(**(CONFIG.to_dict() | {"tie_word_embeddings": False}))
    untied = load(files_at(_saved(untied_config, tmp_path / "untied")))
    assert untied.nbytes - tied.nbytes == 96 * 64 * 4


def _saved(config: LlamaConfig, path: Path) -> Path:
    save_random_model(config, path)
    return path


def test_harmless_extra_tensors_are_ignored(saved: tuple[PreTrainedModel, Path]) -> None:
    model, path = saved
    rotary, beyond = "model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.7.mlp.router"
    rewrite(path, {rotary: torch.ones(8), beyond: torch.ones(8)})
    logprobs = PagedRun(load(files_at(path))).step({0: TOKENS})[0]
    torch.testing.assert_close(logprobs, reference_logprobs(model, TOKENS), rtol=0, atol=1e-4)


NORM = "model.layers.1.input_layernorm.weight"
QUERY = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({NORM: None}, [NORM, "no tensor"]),
        ({NORM: torch.ones(63)}, [NORM, "[63]", "[64]"]),
        ({f"{QUERY}.bias": torch.ones(64)}, [f"{QUERY}.bias", "LlamaForCausalLM"]),
        ({f"{QUERY}.qweight": torch.ones(4, dtype=torch.int32)}, [f"{QUERY}.qweight", "AWQ or GPTQ", "int8"]),
        ({f"{QUERY}.lora_A.weight": torch.ones(4, 64)}, ["lora_A", "merge_and_unload"]),
        ({NORM: torch.ones(64).to(torch.float8_e4m3fn)}, [NORM, "F8_E4M3", "BF16"]),
    ],
    ids=["missing", "shape", "bias", "quantized", "adapter", "fp8"],
)
def test_a_checkpoint_of_something_else_is_refused(
    change: dict[str, torch.Tensor | None], words: list[str], saved: tuple[PreTrainedModel, Path]
) -> None:
    _, path = saved
    rewrite(path, change)
    with pytest.raises(HeadraceError) as caught:
        load(files_at(path))
    assert all(word in str(caught.value) for word in words)
    assert caught.value.fix


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}',
    ],
)
def test_a_broken_safetensors_header_is_refused(header: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(HeadraceError, match="not a safetensors file"):
        SafetensorsCheckpoint([file])


def test_the_shape_of_another_model_is_refused(saved: tuple[PreTrainedModel, Path], tmp_path: Path) -> None:
    other = save_random_model(Qwen2Config(**CONFIG.to_dict()), tmp_path / "other")
    assert other is not None
    with pytest.raises(HeadraceError, match=r"q_proj.bias"):
        load(files_at(saved[1]), shape=shape_of(files_at(tmp_path / "other")))


@pytest.mark.parametrize(
    ("requested", "own", "kind", "expected"),
    [
        ("auto", "float32", "safetensors", torch.float32),
        ("auto", "float16", "safetensors", torch.float16),
        ("auto", "bfloat16", "gguf", torch.bfloat16),
        ("auto", "float16", "gguf", torch.bfloat16),
        ("float16", "bfloat16", "safetensors", torch.float16),
    ],
)
def test_dtype(requested: str, own: str, kind: str, expected: torch.dtype, saved: tuple[PreTrainedModel, Path]) -> None:
    _, path = saved
    files = files_at(path)
    assert files.config is not None
    files.config["dtype"] = own
    assert resolve_dtype(requested, shape_of(files), kind) == expected


MEASURE = """
import sys, torch
from pathlib import Path
from headrace.kernels.torch_ops import TorchOps
from headrace.models.load import load_model
from headrace.models.open import shape_of
from headrace.models.safetensors_reader import SafetensorsCheckpoint
from headrace.store.local import open_path

def status(field):
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0]) / 1024

files = open_path("big", Path(sys.argv[1]))
torch.set_num_threads(1)
before = status("VmRSS")
decoder = load_model(files, shape_of(files), TorchOps(), dtype=torch.bfloat16, quantization="none",
                     device=torch.device("cpu"), max_model_len=64)
print(status("VmHWM") - before, decoder.nbytes / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of this process")
def test_peak_memory_is_the_final_size_and_one_layer(tmp_path: Path) -> None:
    """300 MB in float32 files become 150 MB in bfloat16; neither the files nor a second copy may pile up."""
    sizes = {"vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 7}
    config = LlamaConfig(**(CONFIG.to_dict() | sizes | {"num_attention_heads": 16, "num_key_value_heads": 4}))
    save_random_model(config, tmp_path)
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True, timeout=100
    )
    grown, final = map(float, output.stdout.split())
    layer = final / 7
    assert 130 < final < 170
    assert grown < final + 1.5 * layer + 15
