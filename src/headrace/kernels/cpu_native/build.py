"""Compile the C sources beside this file into one shared library, once for each machine, compiler and version of them.

The result is kept in the cache folder under a hash of everything that it depends on, and put there by an atomic
rename: two processes may build at once, and neither ever loads half a file.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from headrace.core.paths import cache_dir
from headrace.kernels.cpu_native.library import KernelLibrary

_SOURCES = Path(__file__).parent / "csrc"
_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
_TIMEOUT_SECONDS = 120
_NEEDED_FEATURE = "avx512_vnni"
"""As /proc/cpuinfo calls it. Elsewhere the kernels are right, but torch's own are faster from a few tokens on."""


class KernelsUnavailable(Exception):
    """Why there are no compiled kernels here, in one line."""


def start_build() -> Future[KernelLibrary]:
    """Begin to build or find the kernels, in a thread; the result raises `KernelsUnavailable` if there can be none."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="headrace-kernel-build")
    future = executor.submit(_load_where_faster)
    executor.shutdown(wait=False)
    return future


def _load_where_faster() -> KernelLibrary:
    if _NEEDED_FEATURE not in _cpu_features().split():
        raise KernelsUnavailable("this CPU has no AVX-512 VNNI, which the compiled kernels are written for")
    return load_kernels()


def load_kernels(cpu: str = "native") -> KernelLibrary:
    """The kernels for this machine, or for another `cpu` in the compiler's terms; built if they are not cached."""
    compiler = _find_compiler()
    flags = (*_FLAGS, _cpu_flag(cpu))
    name = f"{_fingerprint(compiler, flags)}.so"
    folder = cache_dir() / "kernels"
    with contextlib.suppress(OSError):  # not there, or damaged: build it
        return KernelLibrary(folder / name)
    with tempfile.TemporaryDirectory(prefix="headrace-kernels-") as scratch:
        built = _compile(compiler, flags, Path(scratch))
        return _load(_keep(built, folder / name))


def _find_compiler() -> str:
    candidates = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    found = next((path for name in candidates if name and (path := shutil.which(name))), None)
    if found is None:
        raise KernelsUnavailable("no C compiler found (tried $CC, cc, gcc, clang); install gcc for faster kernels")
    return found


def _cpu_flag(cpu: str) -> str:
    return f"-march={cpu}" if platform.machine() in ("x86_64", "AMD64") else f"-mcpu={cpu}"


def _fingerprint(compiler: str, flags: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for part in (compiler, _run([compiler, "--version"]), *flags, _cpu_features()):
        digest.update(part.encode() + b"\0")
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:24]


def _cpu_features() -> str:
    """What tells two kinds of CPU apart: a home folder may be shared between machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {features}"


def _compile(compiler: str, flags: tuple[str, ...], scratch: Path) -> Path:
    """All sources at once, one compiler process each, then the link."""
    library = scratch / "kernels.so"
    sources = sorted(_SOURCES.glob("*.c"))
    objects = [scratch / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as executor:
        commands = [
            [compiler, *flags, "-c", str(source), "-o", str(made)]
            for source, made in zip(sources, objects, strict=True)
        ]
        list(executor.map(_run, commands))
    _run([compiler, *flags, "-shared", *map(str, objects), "-o", str(library)])
    return library


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailable(f"the C compiler {command[0]} did not run: {error}") from error
    if done.returncode != 0:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise KernelsUnavailable(f"the C compiler {command[0]} failed: {said}")
    return done.stdout


def _keep(built: Path, target: Path) -> Path:
    """Move the library into the cache; where that cannot be written it is used from where it was built."""
    staged = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(built, staged)
        staged.replace(target)
    except OSError:
        return built
    return target


def _load(path: Path) -> KernelLibrary:
    try:
        return KernelLibrary(path)
    except OSError as error:
        raise KernelsUnavailable(f"the compiled kernels {path} cannot be loaded: {error}") from error
