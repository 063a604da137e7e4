"""What a command line gets: help, versions, refusals, and no heavy imports before a command runs."""

import subprocess
import sys
from dataclasses import fields

import pytest

import headrace
from headrace.cli import main
from headrace.cli.engine_options import parse_size
from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.server.run import listen


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["headrace", *arguments])
    return main()


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"headrace {headrace.__version__}\n"


@pytest.mark.parametrize("command", [["serve"], ["chat"], ["bench", "throughput"], ["bench", "latency"]])
def test_every_engine_argument_is_a_flag_of_every_command_with_an_engine(monkeypatch, capsys, command):
    assert run(monkeypatch, *command, "--help") == 0
    shown = capsys.readouterr().out
    names = {field.name for field in fields(EngineConfig)} - {"model", "served_model_name"}
    assert [name for name in names if f"--{name.replace('_', '-')}" not in shown] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--enable-lora", "--lora-modules", "a=b"], "enable_lora=True is not supported yet"),
        (["serve", "--lora-modules", "a=b"], "lora_modules=True is not supported yet"),
        (["serve", "--speculative-config", "{}"], "speculative_config=True is not supported yet"),
        (["serve", "--trust-remote-code"], "trust_remote_code=True is not supported yet"),
        (["serve", "--max-modl-len", "5"], "--max-model-len"),
        (["serve", "--prot", "5"], "--port"),
        (["serv"], "serve"),
        (["serve", "--max-model-len", "long"], "--max-model-len is 'long'"),
        (["serve", "--dtype", "float8"], "dtype is 'float8'"),
        (["serve", "--quantization", "awq"], "int8"),
        (["serve", "--tensor-parallel-size", "4"], "tensor_parallel_size=4"),
        (["serve", "--gpu-memory-utilization", "2"], "gpu_memory_utilization is 2.0"),
        (["serve", "one", "--model", "two"], "Two models"),
        (["serve", "--port", "99999"], "--port"),
        (["serve", "/no/such/model", "--port", "0"], "/no/such/model"),
        (["bench", "latency", "--json", "/no/such/directory/x.json"], "/no/such/directory/x.json, which cannot"),
        (["bench", "throughput", "--json", "/"], "cannot be written"),
        (["serve", "--api-key", "secret"], "--api-key is not supported yet"),
        (["serve", "--ssl-keyfile", "key.pem"], "--ssl-keyfile is not supported yet"),
        (["serve", "--enable-auto-tool-choice"], "--enable-auto-tool-choice is not supported yet"),
        (["serve", "b", "--model", "m", "--served-model-name", "a"], "repeat --served-model-name"),
        (["chat", "--url", "nonsense"], "'nonsense' is not a server's address"),
        (["chat", "--url", "http://127.0.0.1:9"], "headrace serve"),
        (["chat", "--url", "http://127.0.0.1:9", "--dtype", "auto"], "--dtype and --url"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_few_lines(monkeypatch, capsys, arguments, message):
    unreachable = arguments == ["chat", "--url", "http://127.0.0.1:9"]
    assert run(monkeypatch, *arguments) == (1 if unreachable else 2)
    said = capsys.readouterr().err
    assert message in said
    assert "error: " in said
    assert "Traceback" not in said
    assert len(said.splitlines()) < 8


def test_a_port_in_use_is_told_with_another_one(monkeypatch, capsys):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert run(monkeypatch, "serve", "--port", str(port)) == 2
    said = capsys.readouterr().err
    assert f"Port {port} on 127.0.0.1 is in use" in said
    assert f"--port {port + 1}" in said
    assert "Loading" not in said


@pytest.mark.parametrize(
    ("text", "size"), [("5", 5), ("4k", 4_000), ("4K", 4_096), ("1.5k", 1_500), ("2g", 2 * 10**9), ("2G", 2**31)]
)
def test_sizes_are_read_as_vllm_does(text, size):
    assert parse_size("kv_cache_memory_bytes", text) == size


def test_only_the_context_can_be_chosen_by_the_engine():
    assert parse_size("max_model_len", "auto") == parse_size("max_model_len", "-1") == "auto"
    for text in ("auto", "-1", "1e5", "4 k", "k", ""):
        with pytest.raises(HeadraceError):
            parse_size("kv_cache_memory_bytes", text)


def test_help_imports_nothing_heavy():
    heavy = ("torch", "numpy", "zmq", "uvicorn", "pydantic", "tokenizers", "huggingface_hub")
    code = f"import sys, headrace.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_the_server_needs_no_torch():
    code = "import sys, headrace.cli.engine_launcher, headrace.server.run; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
