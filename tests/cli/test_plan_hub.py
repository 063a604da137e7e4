"""A model on a hub: the config and the headers by range requests, never the weights, with the real hub client."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import save

from headrace.cli.plan_model import find_facts
from headrace.core.errors import ErrorKind, HeadraceError

CONFIG = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "dtype": "bfloat16",
}
NAME = "some-org/some-model"
WEIGHT_BYTES = 8 << 20


class Hub:
    """The files of one repository, with ranges; `sent` counts the bytes of weights that left."""

    def __init__(self) -> None:
        import torch

        weights = save({"a.weight": torch.zeros(WEIGHT_BYTES // 2, dtype=torch.bfloat16)})
        self.files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
        self.sent = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0].strip("/")
        if not path.removeprefix("api/models/").startswith(NAME):
            self.send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("api/"):
            siblings = [{"rfilename": name} for name in self.files]
            self.send(request, 200, json.dumps({"id": NAME, "sha": "0" * 40, "siblings": siblings}).encode(), {})
        else:
            self.send_file(request, path.rsplit("/", 1)[1])

    def send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        if name not in self.files:
            self.send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data, status, headers = self.files[name], 200, {"ETag": '"1"', "X-Repo-Commit": "0" * 40}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range") or ""):
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        if name.endswith(".safetensors") and request.command == "GET":
            self.sent += len(data)
        self.send(request, status, data, headers)

    def send(self, request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub where the client looks for one, and an empty cache."""
    from huggingface_hub import constants

    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


def test_headers_are_read_and_no_weights(hub: Hub) -> None:
    facts = find_facts(NAME)
    assert facts.stored is not None
    assert facts.stored.nbytes == WEIGHT_BYTES
    assert facts.stored.bytes_by_dtype == {"BF16": WEIGHT_BYTES}
    assert facts.outline.num_layers == 1
    assert hub.sent < 200_000
    assert "headers" in facts.origin


def test_a_repository_without_safetensors_is_counted_by_formula(hub: Hub) -> None:
    del hub.files["model.safetensors"]
    facts = find_facts(NAME)
    assert facts.stored is None
    assert facts.weight_bytes(None, "bfloat16")[0] == 2 * facts.outline.parameters


def test_a_config_in_the_cache_is_enough_without_a_network(hub: Hub) -> None:
    online = find_facts(NAME)
    hub.close()
    offline = find_facts(NAME)
    assert offline.outline == online.outline
    assert "cannot be reached" in offline.notes[-1]


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(HeadraceError) as caught:
        find_facts("some-org/another")
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_no_network_and_no_cache(hub: Hub) -> None:
    hub.close()
    with pytest.raises(HeadraceError) as caught:
        find_facts("Qwen/Qwen3-8C")
    assert "cannot be reached" in caught.value.what
    assert "Qwen/Qwen3-8B" in caught.value.fix
