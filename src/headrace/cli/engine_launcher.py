"""The engine process as the server's launcher: it never outlives the server, and Ctrl-C does not reach it.

It runs in a process group of its own. Its standard input is a pipe whose other end only this process holds: it closes
however this process ends, and the engine then ends itself.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import msgspec

from headrace.cli.engine_environment import engine_environment
from headrace.cli.model_text import find_model, load_model_text
from headrace.core.config import EngineConfig
from headrace.server.model_text import ModelText

ENGINE_COMMAND = (sys.executable, "-P", "-m", "headrace.engine.process")
"""-P: without it, a numpy.py in the directory that the server was started in would be imported as numpy."""


class EngineProcess:
    """The engine process, the latest if there were several. See `headrace.server.launcher.EngineLauncher`."""

    def __init__(self, config: EngineConfig, command: Sequence[str] = ENGINE_COMMAND) -> None:
        self._config = config
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, address: str, on_exit: Callable[[str], None]) -> None:
        """Start the process; it imports what it needs while the model is still looked for."""
        process = subprocess.Popen(
            [*self._command, address],
            stdin=subprocess.PIPE,
            env=engine_environment(os.environ),
            process_group=0,
        )
        self._process = process
        threading.Thread(target=_report_exit, args=(process, on_exit), name="headrace-engine-exit", daemon=True).start()

    def load(self) -> ModelText:
        """Find the model, tell the engine, and load the tokenizer while the engine loads the weights."""
        files = find_model(self._config)
        self.configure(self._config)
        return load_model_text(self._config, files)

    def reload(self) -> None:
        """Tell a new process what `load` told the first one."""
        self.configure(self._config)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id, once started."""
        return None if self._process is None else self._process.pid

    def stop(self, grace_seconds: float) -> None:
        """Ask the process to end, insist after `grace_seconds`, and wait until it is gone."""
        process = self._process
        if process is None:
            return
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            process.wait()
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def configure(self, config: object) -> None:
        """Send the configuration, one line of JSON. The pipe stays open: its end tells that this process is gone."""
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which `on_exit` tells
            self._process.stdin.write(msgspec.json.encode(config) + b"\n")
            self._process.stdin.flush()


def _report_exit(process: "subprocess.Popen[bytes]", on_exit: Callable[[str], None]) -> None:
    reason = exit_reason(process.wait())
    with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody asks any more
        on_exit(reason)


def exit_reason(status: int) -> str:
    """What an exit status means, in words."""
    if status >= 0:
        return f"it exited with status {status}"
    name = signal.Signals(-status).name
    hint = "; the kernel does that when memory runs out" if -status == signal.SIGKILL else ""
    return f"it was killed by {name}{hint}"


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
