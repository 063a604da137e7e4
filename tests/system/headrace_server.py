"""`headrace serve` as its users run it: a process of its own, with the embedded model and an engine behind it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import psutil

START_SECONDS = 120.0
"""A deadline against hanging only: the embedded model is there in seconds, unless it has to be fetched."""


class HeadraceServer:
    """A running server. `flags` are `headrace serve`'s; without a model among them it is the embedded one.

    Its temporary directory is a folder of `directory`, where its log is too: what is left there at the end is a leak.
    """

    def __init__(self, directory: Path, *flags: str) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self._log = directory / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "serve", "--port", "0", *flags],
                env=os.environ | {"TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )
        self.url = ""

    def wait_ready(self) -> "HeadraceServer":
        """Wait for the report that says where it serves."""
        wait_until(lambda: self._found_url() or self.process.poll() is not None, START_SECONDS)
        assert self.url, f"the server ended: {self.log}"
        return self

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    @property
    def front(self) -> psutil.Process:
        """The HTTP process."""
        return psutil.Process(self.process.pid)

    @property
    def engine(self) -> psutil.Process:
        """The engine process that runs now."""
        [engine] = [each for each in self.front.children() if each.status() != psutil.STATUS_ZOMBIE]
        return engine

    def get(self, path: str) -> httpx.Response:
        """GET `path`."""
        return httpx.get(self.url + path, timeout=60)

    def post(self, path: str, body: object) -> httpx.Response:
        """POST `body` as JSON."""
        return httpx.post(self.url + path, json=body, timeout=300)

    def client(self) -> openai.OpenAI:
        """OpenAI's client, which tries nothing twice."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=300)

    def stop(self, seconds: float = 60.0) -> int:
        """Ask it to end, as a container's runtime does; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def _found_url(self) -> bool:
        if found := re.search(r"Ready at (http://\S+)/v1", self.log):
            self.url = found[1]
        return bool(self.url)


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait until `condition` holds; the seconds it took. The deadline is against hanging."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - began
