"""A Hugging Face hub on 127.0.0.1: the routes that the hub client uses, with the error codes of the real one."""

import json
import threading
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

GOOD_TOKEN = "hf_good"


@dataclass
class Repo:
    """A repository: its files at one commit, and who may read it ("public", "gated", "gated-unaccepted", "broken")."""

    files: dict[str, bytes]
    access: str = "public"
    commit: str = "0123456789" * 4


@dataclass
class FakeHub:
    """Serve `repos` until `close`. `downloads` has the name of each file whose bytes were sent."""

    repos: dict[str, Repo] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(request.path).path).strip("/")
        self.requests.append(f"{request.command} {path}")
        token = (request.headers.get("authorization") or "").removeprefix("Bearer ") or None
        is_api = path.startswith("api/models/")
        parts = path.removeprefix("api/models/").split("/")
        repo = self.repos.get("/".join(parts[:2]))
        refusal = self._refusal(repo, token, is_api)
        if refusal:
            _send(request, refusal[0], b"{}", refusal[1], body)
        elif repo is not None and is_api:
            self._answer_api(request, repo, parts)
        elif repo is not None:
            self._answer_file(request, repo, "/".join(parts[4:]), body)

    def _refusal(self, repo: Repo | None, token: str | None, is_api: bool) -> tuple[int, dict[str, str]] | None:
        if token is not None and token != GOOD_TOKEN:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
        if repo is None:
            return (404 if token else 401), {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        if repo.access == "broken":
            return 503, {}
        if repo.access == "gated" and token is None and not is_api:
            return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."}
        if repo.access == "gated-unaccepted" and not is_api:
            return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "You are not in the authorized list."}
        return None

    def _answer_api(self, request: BaseHTTPRequestHandler, repo: Repo, parts: list[str]) -> None:
        if len(parts) > 3 and parts[3] not in ("main", repo.commit):
            _send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"}, True)
        elif "tree" in parts:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": sha1(data).hexdigest()}
                for name, data in repo.files.items()
            ]
            _send(request, 200, json.dumps(tree).encode(), {}, True)
        else:
            info = {"id": "/".join(parts[:2]), "sha": repo.commit, "siblings": [{"rfilename": f} for f in repo.files]}
            _send(request, 200, json.dumps(info).encode(), {}, True)

    def _answer_file(self, request: BaseHTTPRequestHandler, repo: Repo, name: str, body: bool) -> None:
        if name not in repo.files:
            _send(request, 404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            return
        data = repo.files[name]
        if body:
            self.downloads.append(name)
        _send(request, 200, data, {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": repo.commit}, body)


def _send(request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if body:
        request.wfile.write(data)
