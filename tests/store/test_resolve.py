"""Local models: what is accepted, and what is refused before a weight is read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.store.resolve import resolve


def refused(model: object) -> HeadraceError:
    """The error for a model that must be refused; it names an argument and a cure."""
    with pytest.raises(HeadraceError) as caught:
        resolve(str(model))
    assert caught.value.param == "model"
    assert caught.value.fix
    return caught.value


def test_a_directory(model_dir: Path) -> None:
    files = resolve(str(model_dir))
    assert (files.name, files.path, files.kind) == (str(model_dir), model_dir, "safetensors")
    assert [file.name[:11] for file in files.weight_files] == ["model-00001", "model-00002"]
    assert files.config is not None
    assert files.config["model_type"] == "llama"
    assert files.generation_config == {"temperature": 0.6}


def test_relative_and_home_paths(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_dir.parent)
    monkeypatch.setenv("HOME", str(model_dir.parent))
    for name in ("model", "./model", "~/model"):
        files = resolve(name)
        assert files.name == name
        assert all(file.exists() for file in files.weight_files)


def test_one_unsharded_file_beside_a_second_copy(model_dir: Path, safetensors_files: dict[str, bytes]) -> None:
    data = safetensors_files["model-00001-of-00002.safetensors"]
    for file in model_dir.glob("model*"):
        file.unlink()
    for name in ("model.safetensors", "consolidated.safetensors"):
        (model_dir / name).write_bytes(data)
    assert [file.name for file in resolve(str(model_dir)).weight_files] == ["model.safetensors"]


def test_a_gguf_file_and_a_directory_that_holds_one(gguf_file: Path) -> None:
    for model in (gguf_file, gguf_file.parent):
        files = resolve(str(model))
        assert (files.path, files.kind, files.weight_files, files.config) == (gguf_file, "gguf", (gguf_file,), None)
        assert files.header is not None
        assert files.header.scalars["general.architecture"] == "llama"


def test_several_gguf_files_are_named(gguf_file: Path) -> None:
    gguf_file.with_name("other.gguf").write_bytes(b"x")
    error = refused(gguf_file.parent)
    assert "other.gguf, tiny.gguf" in error.what


def test_the_embedded_model(smollm2_gguf: Path) -> None:
    files = resolve("smollm2-135m-instruct")
    assert (files.path, files.kind) == (smollm2_gguf, "gguf")


@pytest.mark.parametrize(
    "model", ["./absent", "/absent/model", "~/absent", "a/b/c", "absent.gguf", "x\\y", "~nobody/m"]
)
def test_a_path_that_does_not_exist(model: str, hub: FakeHub) -> None:
    error = refused(model)
    assert error.kind is ErrorKind.NOT_FOUND
    assert model in error.what.replace("\\\\", "\\")
    assert "path" in error.fix
    assert hub.requests == []


@pytest.mark.parametrize("model", ["", "gpt2", "no spaces/here please"])
def test_neither_a_path_nor_a_hub_id(model: str, hub: FakeHub) -> None:
    assert refused(model).kind is ErrorKind.NOT_FOUND
    assert hub.requests == []


def test_after_the_colon_comes_a_gguf_file(hub: FakeHub) -> None:
    assert "whole name of a GGUF file" in refused("org/name:Q4_K_M").rule


def test_a_directory_without_config(model_dir: Path) -> None:
    (model_dir / "config.json").unlink()
    assert "no config.json" in refused(model_dir).what


def test_an_adapter_is_not_a_model(model_dir: Path) -> None:
    (model_dir / "config.json").rename(model_dir / "adapter_config.json")
    assert "merge_and_unload" in refused(model_dir).fix


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000])
def test_a_broken_config(model_dir: Path, content: str) -> None:
    (model_dir / "config.json").write_text(content)
    assert "config.json" in refused(model_dir).what


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused(model_dir: Path, name: str) -> None:
    for file in model_dir.glob("model*"):
        file.unlink()
    (model_dir / name).write_bytes(b"x")
    for model in (model_dir, model_dir / name):
        error = refused(model)
        assert name in error.what
        assert "safe_serialization=True" in error.fix


def test_no_weights_at_all(model_dir: Path) -> None:
    for file in model_dir.glob("model*"):
        file.unlink()
    (model_dir / "training_args.bin").write_bytes(b"x")
    assert "no weights" in refused(model_dir).what


def test_missing_shards_are_named(model_dir: Path) -> None:
    (model_dir / "model-00002-of-00002.safetensors").unlink()
    error = refused(model_dir)
    assert "model-00002-of-00002.safetensors" in error.what
    assert "model-00001" not in error.what


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": []}])
def test_an_index_without_a_map(model_dir: Path, index: object) -> None:
    (model_dir / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weight_map" in refused(model_dir).what


def test_an_index_that_leads_out_of_the_directory(model_dir: Path) -> None:
    (model_dir / "model-00001-of-00002.safetensors").rename(model_dir.parent / "secret.safetensors")
    (model_dir / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    error = refused(model_dir)
    assert "../secret.safetensors" in error.what
    assert "beside" in error.rule


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_truncated_safetensors_file(model_dir: Path, keep: int) -> None:
    shard = model_dir / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    error = refused(model_dir)
    assert shard.name in error.what
    assert "cut short" in error.what


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"[]",
        (7).to_bytes(8, "little") + b'{"a":1}',
        b"\x02" + bytes(7) + b"{}+",
    ],
)
def test_a_corrupt_safetensors_file(model_dir: Path, data: bytes) -> None:
    (model_dir / "model-00002-of-00002.safetensors").write_bytes(data)
    assert "not a valid safetensors file" in refused(model_dir).what


def test_a_git_lfs_pointer(model_dir: Path) -> None:
    (model_dir / "model-00002-of-00002.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    assert "git lfs pull" in refused(model_dir).fix


@pytest.mark.parametrize(
    ("quantization", "name"),
    [
        *(({"quant_method": m}, m) for m in ("awq", "gptq", "bitsandbytes", "fp8", "compressed-tensors", "mxfp4")),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"bits": 4}, "an unknown method"),
    ],
)
def test_quantized_checkpoints_are_refused_by_name(model_dir: Path, quantization: object, name: str) -> None:
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    error = refused(model_dir)
    assert f"quantized with {name}" in error.what
    assert "quantization='int8'" in error.fix


def test_check_config_is_asked(model_dir: Path) -> None:
    asked: list[object] = []
    resolve(str(model_dir), check_config=asked.append)
    assert asked == [json.loads((model_dir / "config.json").read_text())]


def test_a_local_model_needs_neither_torch_nor_the_hub_client(model_dir: Path) -> None:
    code = (
        f"import sys; from headrace.store.resolve import resolve; resolve({str(model_dir)!r});"
        "print([name for name in ('torch', 'huggingface_hub', 'gguf') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_made_up_weights_need_a_config_alone(model_dir: Path, gguf_file: Path) -> None:
    for file in model_dir.glob("*.safetensors*"):
        file.unlink()
    files = resolve(str(model_dir), load_format="dummy")
    assert (files.kind, files.weight_files, files.generation_config) == ("dummy", (), {"temperature": 0.6})
    assert files.config is not None
    for model in (gguf_file, "smollm2-135m-instruct"):
        with pytest.raises(HeadraceError, match=r"load_format is 'dummy'.*gguf.*config\.json"):
            resolve(str(model), load_format="dummy")


def test_another_kind_of_file_than_was_asked_for(model_dir: Path) -> None:
    with pytest.raises(HeadraceError, match=r"load_format is 'gguf'.*safetensors"):
        resolve(str(model_dir), load_format="gguf")
