"""Installing Headrace beside a torch that is there already, as on Colab: nothing that is there is replaced.

pip resolves for an environment whose packages are made up of their metadata alone, and installs nothing.
"""

import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLAB = {"torch": "2.11.0+cu130", "triton": "3.6.0", "numpy": "2.0.2", "pydantic": "2.12.3", "rich": "13.9.4"}
TODAY = {"torch": "2.13.0", "triton": "3.7.1", "numpy": "2.4.0"}


def environment(folder: Path, packages: Mapping[str, str]) -> Path:
    """The interpreter of an environment in which these packages are installed, as far as pip can tell."""
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))
    for name, version in packages.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text("")
    return folder / "bin" / "python"


def would_install(python: Path, *requirements: str) -> dict[str, str]:
    """What pip would install, by name."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--dry-run", "--quiet", "--report", "-"]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [each["metadata"] for each in json.loads(done.stdout)["install"]]
    return {each["name"].lower(): each["version"] for each in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return next(folder.glob("headrace-*.whl"))


@pytest.mark.parametrize("present", [COLAB, TODAY], ids=["torch 2.11", "torch 2.13"])
def test_what_is_there_stays(wheel: Path, tmp_path: Path, present: dict[str, str]) -> None:
    new = would_install(environment(tmp_path / "env", present), str(wheel))
    assert "headrace" in new
    assert new.keys() & present.keys() == set()
    assert not [name for name in new if name.startswith(("nvidia-", "cuda-"))]


def test_what_is_too_old_is_replaced(wheel: Path, tmp_path: Path) -> None:
    """The check above can fail."""
    assert "numpy" in would_install(environment(tmp_path / "env", TODAY | {"numpy": "1.20.0"}), str(wheel))
