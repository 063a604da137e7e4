"""`headrace serve` as a process: what ends it before it serves, and what it leaves behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

CERTIFICATE = Path(__file__).parent.parent / "server" / "localhost.pem"


def serve(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", "serve", "--port", "0", *arguments],
        env=os.environ | {"TMPDIR": str(tmp_path)} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_does_not_wait_for_a_hub_that_does_not_answer(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = serve(tmp_path, "some/model", HF_ENDPOINT=hub, HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path / "hub"))
        silent.settimeout(30)
        with silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert (process.returncode, "Traceback" in said) == (0, False)
    assert not list(tmp_path.glob("headrace-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", ""], "The host is ''"),
        ([""], "The model is ''"),
        (["--uvicorn-log-level", "foo"], "--uvicorn-log-level"),
        (["--shutdown-timeout", "inf"], "--shutdown-timeout is inf"),
        (["--shutdown-timeout", "nan"], "--shutdown-timeout is nan"),
        (["--shutdown-timeout", "-1"], "--shutdown-timeout is -1"),
        (["/no/such/model"], "/no/such/model"),
        (["--ssl-certfile", "/no/such.pem"], "--ssl-certfile /no/such.pem cannot be read: No such file"),
        (["--ssl-certfile", __file__], "cannot be used"),
        (["--ssl-certfile", str(CERTIFICATE), "--ssl-keyfile", __file__], "cannot be used"),
        (["--ssl-certfile", str(CERTIFICATE), "--ssl-ca-certs", __file__], "--ssl-ca-certs"),
    ],
)
def test_what_cannot_be_served_is_told_and_leaves_nothing_behind(tmp_path, arguments, message):
    process = serve(tmp_path, *arguments)
    _, said = process.communicate(timeout=60)
    assert message in said and "Traceback" not in said
    assert process.returncode == 2
    assert not list(tmp_path.glob("headrace-*"))
