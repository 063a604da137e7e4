"""Other people's clients, each with its own packages: they pin each other's dependencies, and ours must not be theirs.

Made on first use under .venv-clients at the repository's root, and again when what they need has changed.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE.parents[2] / ".venv-clients"

INSTALL_SECONDS, TALK_SECONDS = 900, 300


def python_client(name: str) -> Path:
    """The directory of programs of a virtual environment with the requirements of the client `name`."""
    requirements = HERE / name / "requirements.txt"
    directory = CACHE / name
    if _is_outdated(directory, [requirements]):
        _run([sys.executable, "-m", "venv", "--clear", directory])
        _run([directory / "bin" / "pip", "install", "--quiet", "--requirement", requirements])
        _remember(directory, [requirements])
    return directory / "bin"


def node_client(name: str) -> Path:
    """A directory with the packages and the program of the client `name`."""
    needs = [HERE / name / "package.json", HERE / name / "package-lock.json"]
    directory = CACHE / name
    directory.mkdir(parents=True, exist_ok=True)
    if _is_outdated(directory, needs):
        for each in needs:
            shutil.copy(each, directory)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--prefix", directory])
        _remember(directory, needs)
    shutil.copy(HERE / name / "talk.mjs", directory)  # node looks for packages beside the program
    return directory


def talk(*command: object) -> dict[str, Any]:
    """What a client's program found out: the JSON object that it prints."""
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=TALK_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _run(command: list[object]) -> None:
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}"


def _is_outdated(directory: Path, needs: list[Path]) -> bool:
    mark = directory / "made-of"
    return not mark.exists() or mark.read_text() != _digest(needs)


def _remember(directory: Path, needs: list[Path]) -> None:
    (directory / "made-of").write_text(_digest(needs))


def _digest(needs: list[Path]) -> str:
    return hashlib.sha256(sys.version.encode() + b"".join(each.read_bytes() for each in needs)).hexdigest()
