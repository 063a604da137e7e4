"""Kernels are compiled before the first launch, once for each machine, and launches find them."""

import json
import os
import subprocess
import sys
from pathlib import Path


def start(cache: Path, facts: str = "a model") -> dict[str, object]:
    """What one process did that compiled ahead with this cache."""
    script = Path(__file__).with_name("compile_ahead_once.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, str(script), facts]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_all_kernels_are_there_after_one_start_and_the_next_does_nothing_twice(tmp_path: Path) -> None:
    first = start(tmp_path)
    assert first["error"] == "CompilationError"
    assert first["ahead"] == {"times": 1, "built": first["kernels"], "found": 0}
    assert first["built later"] == 0
    second = start(tmp_path)
    assert second["ahead"] == {"times": 0, "built": 0, "found": 0}
    assert second["built later"] == 0
    other = start(tmp_path, "another model")
    assert other["ahead"] == {"times": 1, "built": 0, "found": other["kernels"]}
