"""What a command line gets: help, versions, refusals, and no heavy imports before a command runs."""

import subprocess
import sys
from dataclasses import fields

import pytest

import headrace
from headrace.cli import main
from headrace.cli.engine_environment import engine_environment
from headrace.cli.engine_options import parse_size
from headrace.cli.serve import start_report
from headrace.core.config import EMBEDDED_MODEL, EngineConfig
from headrace.core.errors import HeadraceError
from headrace.server.options import ServerOptions, flag_of
from headrace.server.run import listen
from headrace.wire.messages import Ready


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
    names = {field.name for field in fields(EngineConfig)} - {"model", "served_model_name", "skip_tokenizer_init"}
    assert [name for name in names if f"--{name.replace('_', '-')}" not in shown] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--enable-lora", "--lora-modules", "a=b"], "--enable-lora is not supported yet"),
        (["serve", "--lora-modules", "a=b"], "--lora-modules is not supported yet"),
        (["serve", "--speculative-config", "{}"], "--speculative-config is not supported yet"),
        (["serve", "--trust-remote-code"], "--trust-remote-code is not supported yet"),
        (["serve", "--max-modl-len", "5"], "--max-model-len"),
        (["serve", "--prot", "5"], "--port"),
        (["serv"], "serve"),
        (["serve", "--max-model-len", "long"], "--max-model-len is 'long'"),
        (["serve", "--dtype", "float8"], "--dtype is 'float8'"),
        (["serve", "--quantization", "awq"], "int8"),
        (["serve", "--tensor-parallel-size", "4"], "--tensor-parallel-size 4"),
        (["serve", "--gpu-memory-utilization", "2"], "--gpu-memory-utilization is 2.0"),
        (["serve", "--max-model-len", "0"], "--max-model-len is 0"),
        (["serve", "--device", "cuda:99"], "--device is 'cuda:99'"),
        (["serve", "--device", "cpu", "--kv-cache-dtype", "fp8"], "Leave --kv-cache-dtype out"),
        (["serve", "--max-num-batched-tokens", "1"], "--max-num-batched-tokens is 1 and --max-num-seqs is 256"),
        (["serve", "--device", "tpu"], "error: --device is 'tpu'"),
        (["serve", "--quantization", "gptq"], "Use --quantization int8 on"),
        (["serve", "--cpu-offload-gb", "4"], "or --quantization int8"),
        (["serve", "--pipeline-parallel-size", "2"], "--pipeline-parallel-size is not supported yet"),
        (["serve", "--speculative-model", "m", "--num-speculative-tokens", "5"], "--speculative-model is not supp"),
        (["chat", "--temperature", "3"], "--temperature is 3.0"),
        (["serve", "one", "--model", "two"], "Two models"),
        (["serve", "--port", "99999"], "--port"),
        (["serve", "/no/such/model", "--port", "0"], "/no/such/model"),
        (["bench", "latency", "--json", "/no/such/directory/x.json"], "/no/such/directory/x.json, which cannot"),
        (["bench", "throughput", "--json", "/"], "cannot be written"),
        (["serve", "--api-key", "se cret"], "A key given with --api-key"),
        (["serve", "--admin-key", ""], "A key given with --admin-key"),
        (["serve", "--ssl-keyfile", "key.pem"], "--ssl-keyfile is given without --ssl-certfile"),
        (["serve", "--ssl-certfile", "c", "--ssl-cert-reqs", "2"], "no --ssl-ca-certs"),
        (["serve", "--ssl-certfile", "c", "--ssl-cert-reqs", "3"], "--ssl-cert-reqs is 3"),
        (["serve", "--root-path", "llm"], "--root-path is 'llm'"),
        (["serve", "--max-body-bytes", "5"], "--max-body-bytes is 5"),
        (["serve", "--request-body-timeout", "0"], "--request-body-timeout is 0"),
        (["serve", "--allowed-origins", "example.com"], "--allowed-origins has 'example.com'"),
        (["serve", "--allowed-origins", '["*"'], "JSON list"),
        (["serve", "--allowed-origins", "*", "--allow-credentials"], "--allow-credentials is set"),
        (["serve", "--served-model-name", "a", "b"], "'b' may be the model"),
        (["serve", "--enable-auto-tool-choice"], "--enable-auto-tool-choice is not supported yet"),
        (["serve", "b", "--model", "m", "--served-model-name", "a"], "Two models are named"),
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
    assert "Traceback" not in said and "=True" not in said and "_" not in said.replace("merge_and_unload", "")
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
    heavy = ("torch", "numpy", "uvicorn", "pydantic", "tokenizers", "huggingface_hub")
    code = f"import sys, headrace.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_the_server_needs_no_torch():
    code = "import sys, headrace.cli.engine_launcher, headrace.server.run; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def served_with(monkeypatch, *arguments):
    """What `headrace serve` would serve: the configuration, the names and the server's options."""
    seen = []
    monkeypatch.setattr(sys.modules["headrace.cli.serve"], "_run", lambda *what: seen.append(what))
    assert run(monkeypatch, "serve", *arguments) == 0
    [what] = seen
    return what


@pytest.mark.parametrize(
    "arguments",
    [
        ["m", "--served-model-name", "a", "b", "--port", "0"],
        ["m", "--port", "0", "--served-model-name", "a", "b"],
        ["--served-model-name", "a", "b", "--model", "m", "--port", "0"],
        ["m", "--served-model-name", "a", "--port", "0", "--served-model-name", "b"],
        ["m", "--served-model-name", '["a", "b"]', "--port", "0"],
        ["--served-model-name=a", "--served-model-name=b", "--port", "0", "m"],
    ],
)
def test_several_names_are_written_as_for_vllm(monkeypatch, arguments):
    config, names, options = served_with(monkeypatch, *arguments)
    assert (config.model, config.served_model_name, names, options.port) == ("m", "a", ("a", "b"), 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--api-key", "k1", "k2", "--admin-key", "adm", "--served-model-name", "big", "--served-model-name", "small"],
        ["--served-model-name", "big", "small", "--api-key", "k1", "--api-key", "k2", "--admin-key", "adm"],
    ],
)
def test_several_values_before_another_flag_need_no_model(monkeypatch, arguments):
    config, names, options = served_with(monkeypatch, *arguments)
    assert (config.model, names) == (EMBEDDED_MODEL, ("big", "small"))
    assert (options.api_key, options.admin_key) == (("k1", "k2"), "adm")


@pytest.mark.parametrize("model", ["org/model", "./model.gguf", EMBEDDED_MODEL, "/"])
def test_what_looks_like_a_model_is_never_made_a_key(monkeypatch, capsys, model):
    assert run(monkeypatch, "serve", "--api-key", "k1", model, "--port", "0") == 2
    said = capsys.readouterr().err
    assert f"'{model}' may be the model" in said and f"repeat the flag: --api-key k1 --api-key {model}" in said


def test_a_name_may_be_followed_by_the_model(monkeypatch):
    config, names, _ = served_with(monkeypatch, "--served-model-name", "a", "--port", "0", "m")
    assert (config.model, names) == ("m", ("a",))


def test_keys_come_from_flags_or_else_from_the_environment_and_are_not_shown(monkeypatch):
    monkeypatch.setenv("HEADRACE_API_KEY", "from-env other")
    monkeypatch.setenv("HEADRACE_ADMIN_KEY", "admin-env")
    _, _, options = served_with(monkeypatch, "m")
    assert (options.api_key, options.admin_key) == (("from-env", "other"), "admin-env")
    _, _, options = served_with(monkeypatch, "m", "--api-key", "one", "two", "--api-key", "three")
    assert options.api_key == ("one", "two", "three")
    assert "three" not in repr(options) and "admin-env" not in repr(options)


def test_keys_do_not_reach_the_engine_process():
    environment = engine_environment({"HEADRACE_API_KEY": "k", "HEADRACE_ADMIN_KEY": "k", "HOME": "/h"})
    assert "k" not in environment.values() and environment["HOME"] == "/h"


def test_every_server_option_is_a_flag(monkeypatch, capsys):
    assert run(monkeypatch, "serve", "--help") == 0
    shown = capsys.readouterr().out
    assert [each.name for each in fields(ServerOptions) if flag_of(each.name) not in shown] == []


def test_flags_of_the_server_reach_it(monkeypatch):
    _, _, options = served_with(
        monkeypatch, "m", "--host", "0.0.0.0", "--root-path", "/llm", "--max-body-bytes", "4096",
        "--request-header-timeout", "2", "--allowed-origins", "http://a", "https://b:1", "--allow-credentials",
        "--uvicorn-log-level", "info", "--disable-uvicorn-access-log",
    )  # fmt: skip
    assert options == ServerOptions(
        host="0.0.0.0",
        root_path="/llm",
        max_body_bytes=4096,
        request_header_timeout_seconds=2.0,
        allowed_origins=("http://a", "https://b:1"),
        allow_credentials=True,
        uvicorn_log_level="info",
        disable_uvicorn_access_log=True,
    )


def test_the_start_report_shows_keys_and_certificates_as_they_are_needed():
    ready = Ready(max_model_len=10, vocab_size=10, report=[])
    plain = start_report(ready, "http://h:1", "m", ServerOptions())
    assert '"max_tokens": 100' in plain and "HEADRACE_API_KEY" not in plain and "cacert" not in plain
    options = ServerOptions(api_key=("secret",), ssl_certfile="my cert.pem")
    shown = start_report(ready, "https://h:1", "m", options)
    assert '-H "Authorization: Bearer $HEADRACE_API_KEY"' in shown and "secret" not in shown
    assert "curl --cacert 'my cert.pem' https://h:1/v1" in shown
    assert "SSL_CERT_FILE='my cert.pem' headrace chat --url https://h:1 --api-key \"$HEADRACE_API_KEY\"" in shown
