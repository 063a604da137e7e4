"""A Hugging Face hub of one process, for programs that ask one: configurations, and headers of weights that are not.

A model's one safetensors file has names, shapes and dtypes, and nothing behind its header.
"""

import json
import re
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Repository = Mapping[str, bytes]
"""File name -> what is in it."""

_COMMIT = "0" * 40


def safetensors_header(shapes: Mapping[str, tuple[int, ...]], dtype: str, element_bytes: int) -> bytes:
    """The beginning of a safetensors file with these tensors, up to the first tensor's bytes."""
    entries, offset = {}, 0
    for name, shape in shapes.items():
        size = element_bytes
        for length in shape:
            size *= length
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@contextmanager
def serving(repositories: Mapping[str, Repository]) -> Iterator[str]:
    """Serve them at the address that is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, repositories)

        def do_HEAD(self) -> None:
            _answer(self, repositories)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, repositories: Mapping[str, Repository]) -> None:
    path = request.path.split("?")[0].strip("/")
    for name, files in repositories.items():
        if path.startswith(f"api/models/{name}/tree/"):
            tree = [{"type": "file", "path": file, "size": len(data)} for file, data in files.items()]
            return _send(request, json.dumps(tree).encode())
        if path.removeprefix("api/models/").startswith(name) and path.startswith("api/"):
            siblings = [{"rfilename": file} for file in files]
            config = json.loads(files["config.json"])
            known = {"id": name, "sha": _COMMIT, "siblings": siblings, "config": config, "library_name": "transformers"}
            return _send(request, json.dumps(known).encode())
        if path.startswith(f"{name}/resolve/") and (data := files.get(path.rpartition("/")[2])) is not None:
            return _send(request, data, etag=True)
    request.send_response(404)
    request.send_header("X-Error-Code", "EntryNotFound")
    request.send_header("Content-Length", "0")
    return request.end_headers()


def _send(request: BaseHTTPRequestHandler, data: bytes, *, etag: bool = False) -> None:
    total, status = len(data), 200
    if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range") or ""):
        first, last = int(wanted[1]), min(int(wanted[2]), total - 1)
        data, status = data[first : last + 1], 206
    request.send_response(status)
    if status == 206:
        request.send_header("Content-Range", f"bytes {first}-{last}/{total}")
    if etag:
        request.send_header("ETag", '"1"')
        request.send_header("X-Repo-Commit", _COMMIT)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(data)
