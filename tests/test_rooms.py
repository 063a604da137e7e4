"""The rooms of the package and who may import whom, read from the imports themselves (docs/architecture.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import headrace

PACKAGE = Path(headrace.__file__).parent

MAY_IMPORT = {
    "core": set(),
    "wire": {"core"},
    "text": {"core"},
    "observe": {"core"},
    "planner": {"core"},
    "store": {"core"},
    "kernels": {"core"},
    "models": {"core", "planner", "store", "kernels"},
    "engine": {"core", "wire", "text", "observe", "planner", "store", "kernels", "models"},
    "server": {"core", "wire", "text", "observe"},
    "testing": {"core", "wire", "text"},
}
"""Room -> the rooms that it may import besides itself; `cli` may import all of them."""

TORCH_ROOMS = {"kernels", "models", "engine"}
TORCH_FREE_PARTS = ("engine/sched", "engine/kv", "engine/request.py")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def test_a_room_imports_only_what_it_may() -> None:
    wrong = []
    for path in modules():
        room = path.relative_to(PACKAGE).parts[0]
        for name in imports(path) if room in MAY_IMPORT else ():
            top, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if top == "headrace" and other and other != room and other not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_torch_stays_in_its_rooms() -> None:
    wrong = []
    for path in modules():
        inside = path.relative_to(PACKAGE).as_posix()
        free = inside.split("/")[0] not in TORCH_ROOMS or inside.startswith(TORCH_FREE_PARTS)
        if free and any(name.split(".")[0] in ("torch", "triton") for name in imports(path)):
            wrong.append(inside)
    assert not wrong


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms - {"cli"} <= MAY_IMPORT.keys()


def test_importing_headrace_imports_next_to_nothing() -> None:
    """No torch, nothing but the package's own name: that is what keeps it under 50 ms."""
    code = "import sys; before = set(sys.modules); import headrace; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    third_party = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"headrace"}
    assert not third_party


def test_the_http_front_runs_without_torch() -> None:
    code = (
        "import sys; import headrace.server.app, headrace.cli.serve, headrace.text.tokenizer; "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
