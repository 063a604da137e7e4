"""`headrace plan`: for people and for machines, from every place where a model may be described, without a network."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from headrace.core.config import EMBEDDED_MODEL

CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "dtype": "bfloat16",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opens a connection fails."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def test_a_known_model_offline(run) -> None:
    status, printed, _ = run("meta-llama/Llama-3.1-70B")
    assert status == 0
    assert "70.55 B parameters" in printed
    assert "2 x H200" in printed
    assert "headrace serve meta-llama/Llama-3.1-70B --max-model-len 131072" in printed
    assert "Weights" in printed and "KV cache" in printed and "[#" in printed


def test_every_line_is_explained(run) -> None:
    _, printed, _ = run("Qwen/Qwen3-8B", "--gpu", "L4", "--max-loras", "2", "--explain")
    assert "8,190,735,360 parameters in bfloat16" in printed
    assert "2 slots x rank 16" in printed
    assert "estimate: " in printed
    assert "a token keeps 147,456 bytes" in printed


def test_what_was_not_measured_is_said(run) -> None:
    _, printed, _ = run("Qwen/Qwen3-8B", "--gpu", "L4", "--quantization", "int8")
    assert "estimates, not measured: CUDA context" in printed
    assert "int8 is unpacked at each call: counted, not measured" in " ".join(printed.split())


def test_json_has_the_same(answer) -> None:
    found = answer("Qwen/Qwen3-8B", "--gpu", "L40S", "--max-model-len", "8K", "--concurrency", "3")
    assert found["parameters"] == 8_190_735_360
    assert found["plan"]["context"] == 8192
    assert found["plan"]["gpu"] == "L40S" and found["enough"]
    lines = {line["label"]: line["bytes"] for line in found["plan"]["lines"]}
    assert sum(lines.values()) + found["plan"]["kv_cache_bytes"] == found["plan"]["allowed_bytes"]
    assert found["engine_arguments"]["max_model_len"] == 8192
    assert found["engine_refusal"] is None


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["deepseek-ai/DeepSeek-V3"], "deepseek_v3"),
        (["Qwen/Qwen3-8B", "--gpu", "L4", "-tp", "2"], "--tensor-parallel-size 2"),
        (["Qwen/Qwen3-8B", "--gpu", "H100", "--kv-cache-dtype", "fp8_e5m2"], "--kv-cache-dtype"),
        (["Qwen/Qwen3-8B", "--gpu", "H100", "--quantization", "awq"], "awq"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_what_the_engine_does_not_take_is_said(answer, arguments: list[str], refused: str) -> None:
    assert refused in answer(*arguments)["engine_refusal"]


def test_a_bare_config(answer, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    found = answer(str(tmp_path / "config.json"), "--gpu", "T4")
    assert found["origin"] == str(tmp_path / "config.json")
    assert found["stored_bytes"] is None
    assert answer(str(tmp_path), "--gpu", "T4")["parameters"] == found["parameters"]


def test_the_headers_of_a_directory_are_summed(answer, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(**CONFIG)
    transformers.AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(tmp_path)
    found = answer(str(tmp_path), "--gpu", "T4")
    assert found["stored_bytes"] == 2 * found["parameters"]
    assert found["stored_bytes_by_dtype"] == {"BF16": found["stored_bytes"]}
    assert found["plan"]["lines"][0]["bytes"] == found["stored_bytes"]


def test_a_tied_head_in_the_file_is_not_loaded_twice_and_other_parts_are(answer, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": True}))
    parts = {"model.embed_tokens.weight": 50, "lm_head.weight": 50, "vision_tower.patch.weight": 7}
    save_file({name: torch.zeros(rows, 64) for name, rows in parts.items()}, tmp_path / "model.safetensors")
    found = answer(str(tmp_path), "--gpu", "T4")
    assert found["stored_bytes"] == 107 * 64 * 4
    assert found["plan"]["lines"][0]["bytes"] == 57 * 64 * 2


def test_quantized_weights_are_what_the_headers_say(answer, tmp_path: Path) -> None:
    quantized = {**CONFIG, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}
    (tmp_path / "config.json").write_text(json.dumps(quantized))
    save_file({"a.qweight": torch.zeros(8, 64, dtype=torch.int32)}, tmp_path / "model.safetensors")
    found = answer(str(tmp_path), "--gpu", "T4")
    assert found["plan"]["lines"][0]["bytes"] == found["stored_bytes"] == 8 * 64 * 4
    assert "headers" in found["plan"]["lines"][0]["formula"]
    assert "gptq 4-bit" in found["engine_refusal"]


def test_a_gguf_file(answer, smollm2_gguf: Path) -> None:
    found = answer(str(smollm2_gguf), "--gpu", "T4")
    assert found["parameters"] == 134_515_008
    assert found["stored_bytes"] == 96_576_768
    assert found["plan"]["lines"][0]["bytes"] == 2 * 134_515_008  # a GPU has no kernel for its 4-bit groups yet
    assert answer(EMBEDDED_MODEL, "--gpu", "T4")["stored_bytes"] == found["stored_bytes"]


def test_nothing_fits_is_an_answer(run) -> None:
    status, printed, _ = run("meta-llama/Llama-3.1-405B", "--dtype", "float32", "--gpu", "T4")
    assert status == 0
    assert "does not fit 1 x T4" in printed
    assert "headrace serve" not in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], ["'nobody'", "hub id"]),
        (["Qwen/Qwen3-9B"], ["Qwen/Qwen3-9B", "cannot be reached", "Qwen/Qwen3-8B"]),
        (["./missing/config.json"], ["missing/config.json"]),
        (["Qwen/Qwen3-8B", "--gpu", "GTX480"], ["'GTX480'", "H100"]),
        (["Qwen/Qwen3-8B", "--max-model-len", "-5"], ["-5", "must be a number"]),
        (["Qwen/Qwen3-8B", "--max-model-len", "many"], ["'many'"]),
        (["Qwen/Qwen3-8B", "--concurrency", "0"], ["concurrency is 0"]),
        (["Qwen/Qwen3-8B", "--gpu", "L4", "-tp", "3"], ["--tensor-parallel-size is 3", "1, 2, 4, 8"]),
        (["Qwen/Qwen3-8B", "--quantization", "q9"], ["'q9'", "int8"]),
        (["Qwen/Qwen3-8B", "--gpu-memory-utilization", "3"], ["--gpu-memory-utilization is 3.0"]),
        (["Qwen/Qwen3-8B", "--max-loras", "-1"], ["--max-loras is -1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
)
def test_bad_input(run, arguments: list[str], words: list[str]) -> None:
    status, printed, complaint = run(*arguments)
    assert status != 0
    assert printed == ""
    assert "Traceback" not in complaint
    for word in words:
        assert word in complaint


def test_a_config_without_what_is_needed_names_it(run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({name: value for name, value in CONFIG.items() if name != "num_hidden_layers"}))
    _, _, complaint = run(str(path))
    assert "config.json has no num_hidden_layers" in complaint


def test_an_unknown_type_is_planned_and_said(run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, "model_type": "frobnicator"}))
    status, printed, _ = run(str(path))
    assert status == 0
    assert "note: The model type 'frobnicator' is not known" in printed


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; from headrace.cli import main; sys.argv = ['headrace', 'plan', 'gpt2', '--json']; main(); "
        "print([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize("command", [[], ["compare"], ["prices", "show"], ["prices", "refresh"]], ids=" ".join)
def test_help_has_examples(run, command: list[str]) -> None:
    status, shown, _ = run(*command, "--help")
    assert status == 0
    assert f"  headrace {' '.join(['plan', *command])}" in shown, "an example"
    assert max(map(len, shown.splitlines())) <= 110


def test_a_model_may_be_called_as_a_command_is(answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    assert answer("./compare", "--gpu", "T4")["model"] == "./compare"


def test_a_wrong_word_after_prices_is_answered_with_the_right_one(run) -> None:
    status, _, complaint = run("prices", "refesh")
    assert status == 2 and "Did you mean `headrace plan prices refresh`?" in complaint
