"""Hub ids, with the real hub client against a hub on 127.0.0.1."""

import gc
from pathlib import Path

import pytest
from fake_hub import GOOD_TOKEN, FakeHub, Repo

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.store.resolve import resolve

NAME = "some-org/some-model"


@pytest.fixture
def refused(tmp_path: Path):
    """Resolve a hub id that must be refused."""

    def resolve_refused(name: str = NAME, **kwargs: object) -> HeadraceError:
        with pytest.raises(HeadraceError) as caught:
            resolve(name, download_dir=str(tmp_path / "hub"), progress=False, **kwargs)
        return caught.value

    return resolve_refused


def test_downloads_once_and_then_asks_only_for_the_commit(hub: FakeHub, safetensors_files, tmp_path: Path) -> None:
    extra = {"README.md": b"x", "onnx/model.safetensors": b"x", "consolidated.safetensors": b"x", "flax.msgpack": b"x"}
    hub.repos[NAME] = Repo(safetensors_files | extra)
    for _ in range(2):
        files = resolve(NAME, download_dir=str(tmp_path), progress=False)
        assert files.name == NAME
        assert files.kind == "safetensors"
        assert [f.name for f in files.weight_files] == sorted(n for n in safetensors_files if n.endswith("tensors"))
        assert files.generation_config == {"temperature": 0.6}
        assert sorted(hub.downloads) == sorted(safetensors_files)
        hub.requests, first = [], hub.requests
    assert [r for r in first if "resolve" not in r and "tree" not in r] == [f"GET api/models/{NAME}/revision/main"]


def test_made_up_weights_are_not_downloaded(hub: FakeHub, safetensors_files, tmp_path: Path) -> None:
    hub.repos[NAME] = Repo(safetensors_files)
    files = resolve(NAME, download_dir=str(tmp_path), progress=False, load_format="dummy")
    assert (files.kind, files.weight_files, files.generation_config) == ("dummy", (), {"temperature": 0.6})
    assert not [name for name in hub.downloads if name.endswith(".safetensors")]


def test_a_complete_cache_is_enough_without_a_network(hub: FakeHub, safetensors_files, tmp_path: Path) -> None:
    hub.repos[NAME] = Repo(safetensors_files)
    online = resolve(NAME, download_dir=str(tmp_path), progress=False)
    hub.close()
    assert resolve(NAME, download_dir=str(tmp_path), progress=False) == online


def test_a_cache_that_lacks_only_what_is_not_needed(hub: FakeHub, safetensors_files, tmp_path: Path) -> None:
    """As when another program has fetched the config and the weights, and no more."""
    hub.repos[NAME] = Repo(safetensors_files | {"preprocessor_config.json": b"{}"})
    online = resolve(NAME, download_dir=str(tmp_path), progress=False)
    (online.path / "preprocessor_config.json").unlink()
    hub.close()
    assert resolve(NAME, download_dir=str(tmp_path), progress=False) == online


def test_offline_mode_sends_nothing(hub: FakeHub, safetensors_files, tmp_path: Path, monkeypatch) -> None:
    hub.repos[NAME] = Repo(safetensors_files)
    online = resolve(NAME, download_dir=str(tmp_path), progress=False)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(NAME, download_dir=str(tmp_path), progress=False) == online
    assert hub.requests == []


def test_without_network_or_cache(hub: FakeHub, refused) -> None:
    hub.close()
    error = refused()
    assert error.kind is ErrorKind.UNAVAILABLE
    assert NAME in error.what
    assert "no network" in error.what
    assert f"hf download {NAME}" in error.fix


def test_offline_with_a_partial_cache(hub: FakeHub, safetensors_files, refused, tmp_path: Path, monkeypatch) -> None:
    hub.repos[NAME] = Repo(safetensors_files)
    files = resolve(NAME, download_dir=str(tmp_path / "hub"), progress=False)
    files.weight_files[1].unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = refused()
    assert "HF_HUB_OFFLINE" in error.what
    assert "in part" in error.what


def test_an_interrupted_download_goes_on(hub: FakeHub, safetensors_files, tmp_path: Path) -> None:
    hub.repos[NAME] = Repo(safetensors_files)
    files = resolve(NAME, download_dir=str(tmp_path), progress=False)
    lost = files.weight_files[1]
    lost.resolve().unlink()
    lost.unlink()
    hub.downloads.clear()
    resolve(NAME, download_dir=str(tmp_path), progress=False)
    assert hub.downloads == [lost.name]


def test_gated_without_a_token(hub: FakeHub, safetensors_files, refused) -> None:
    hub.repos[NAME] = Repo(safetensors_files, access="gated")
    error = refused()
    assert error.kind is ErrorKind.UNAUTHORIZED
    assert "no token" in error.what
    assert "HF_TOKEN" in error.fix


def test_gated_with_the_token(hub: FakeHub, safetensors_files, tmp_path: Path) -> None:
    hub.repos[NAME] = Repo(safetensors_files, access="gated")
    assert resolve(NAME, token=GOOD_TOKEN, download_dir=str(tmp_path), progress=False).weight_files


def test_a_licence_that_was_not_accepted(hub: FakeHub, safetensors_files, refused) -> None:
    hub.repos[NAME] = Repo(safetensors_files, access="gated-unaccepted")
    error = refused(token=GOOD_TOKEN)
    assert error.kind is ErrorKind.FORBIDDEN
    assert error.fix == f"Accept the licence at {hub.url}/{NAME}"


@pytest.mark.parametrize("access", ["public", "gated"])
def test_a_wrong_token(hub: FakeHub, safetensors_files, refused, access: str) -> None:
    hub.repos[NAME] = Repo(safetensors_files, access=access)
    error = refused(token="hf_wrong")
    assert error.kind is ErrorKind.UNAUTHORIZED
    assert "does not know the token" in error.what
    assert "hf_wrong" not in str(error)


@pytest.mark.parametrize("token", [None, GOOD_TOKEN])
def test_no_such_repository(hub: FakeHub, refused, token: str | None) -> None:
    error = refused(token=token)
    assert error.kind is ErrorKind.NOT_FOUND
    assert "private" in error.rule


def test_no_such_revision(hub: FakeHub, safetensors_files, refused) -> None:
    hub.repos[NAME] = Repo(safetensors_files)
    error = refused(revision="v9")
    assert error.kind is ErrorKind.NOT_FOUND
    assert "'v9'" in error.what


def test_a_hub_that_is_down(hub: FakeHub, safetensors_files, refused) -> None:
    hub.repos[NAME] = Repo(safetensors_files, access="broken")
    error = refused()
    assert error.kind is ErrorKind.UNAVAILABLE
    assert "503" in error.what


def test_refusals_come_before_the_weights(hub: FakeHub, safetensors_files, refused) -> None:
    quantized = b'{"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "awq", "bits": 4}}'
    hub.repos[NAME] = Repo(safetensors_files | {"config.json": quantized})
    assert "awq" in refused().what
    assert not any(name.endswith(".safetensors") for name in hub.downloads)


def test_check_config_can_refuse_before_the_weights(hub: FakeHub, safetensors_files, refused) -> None:
    def refuse(config: dict[str, object]) -> None:
        raise HeadraceError(f"not {config['model_type']}")

    hub.repos[NAME] = Repo(safetensors_files)
    assert refused(check_config=refuse).what == "not llama"
    assert not any(name.endswith(".safetensors") for name in hub.downloads)


def test_pickles_only(hub: FakeHub, safetensors_files, refused) -> None:
    hub.repos[NAME] = Repo({"config.json": safetensors_files["config.json"], "pytorch_model.bin": b"x"})
    error = refused()
    assert "pytorch_model.bin" in error.what
    assert "safe_serialization=True" in error.fix
    assert hub.downloads == ["config.json"]


@pytest.mark.parametrize("with_config", [False, True])
def test_gguf_files_to_choose_from(hub: FakeHub, safetensors_files, refused, with_config: bool) -> None:
    files = {"m-Q4_K_M.gguf": b"x", "m-Q8_0.gguf": b"x"}
    hub.repos[NAME] = Repo(files | ({"config.json": safetensors_files["config.json"]} if with_config else {}))
    error = refused()
    assert "m-Q4_K_M.gguf, m-Q8_0.gguf" in error.rule
    assert f"{NAME}:m-Q4_K_M.gguf" in error.fix


def test_one_gguf_file_of_a_repository(hub: FakeHub, gguf_file: Path, tmp_path: Path) -> None:
    hub.repos[NAME] = Repo({"tiny.gguf": gguf_file.read_bytes(), "other.gguf": b"x"})
    for attempt in range(3):
        if attempt == 2:
            hub.close()
        files = resolve(f"{NAME}:tiny.gguf", download_dir=str(tmp_path / "hub"), progress=False)
        assert (files.kind, files.weight_files, files.config) == ("gguf", (files.path,), None)
    assert hub.downloads == ["tiny.gguf"]


def test_a_gguf_file_in_a_folder_of_the_repository(hub: FakeHub, gguf_file: Path, tmp_path: Path) -> None:
    hub.repos[NAME] = Repo({"Q8_0/tiny[1].gguf": gguf_file.read_bytes(), "tiny1.gguf": b"x"})
    files = resolve(f"{NAME}:Q8_0/tiny[1].gguf", download_dir=str(tmp_path / "hub"), progress=False)
    assert files.path.name == "tiny[1].gguf"
    assert hub.downloads == ["Q8_0/tiny[1].gguf"]


def test_a_gguf_file_that_the_repository_has_not(hub: FakeHub, gguf_file: Path, refused) -> None:
    hub.repos[NAME] = Repo({"tiny.gguf": gguf_file.read_bytes()})
    error = refused(f"{NAME}:huge.gguf")
    assert "huge.gguf" in error.what
    assert "tiny.gguf" in error.rule


def test_a_part_of_a_split_gguf_is_not_downloaded(hub: FakeHub, refused) -> None:
    hub.repos[NAME] = Repo({"m-00001-of-00002.gguf": b"x"})
    assert "split" in refused(f"{NAME}:m-00001-of-00002.gguf").what
    assert hub.requests == []


def test_a_progress_bar_at_the_first_download_only(
    hub: FakeHub, safetensors_files, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("TQDM_POSITION", "-1")  # the hub client's way to have bars where there is no terminal
    hub.repos[NAME] = Repo(safetensors_files)
    resolve(NAME, download_dir=str(tmp_path / "silent"), progress=False)
    assert capsys.readouterr().err == ""
    resolve(NAME, download_dir=str(tmp_path))
    gc.collect()  # the client closes its bars, and so draws them once more, when they are collected
    assert "100%" in capsys.readouterr().err
    resolve(NAME, download_dir=str(tmp_path))
    assert capsys.readouterr().err == ""
