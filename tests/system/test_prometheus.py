"""A real Prometheus scrapes the real server, in the format that it prefers, and finds what was counted."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from headrace_server import HeadraceServer, wait_until
from scraped import scrape


class Prometheus:
    """A Prometheus that scrapes one server every second."""

    def __init__(self, directory: Path, server: HeadraceServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._url = f"http://127.0.0.1:{free.getsockname()[1]}"
        jobs = [{"job_name": "headrace", "static_configs": [{"targets": [server.url.removeprefix("http://")]}]}]
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
        (directory / "prometheus.yml").write_text(json.dumps(config))  # YAML knows JSON
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        address = f"--web.listen-address={self._url.removeprefix('http://')}"
        with (directory / "log").open("w") as log:
            self._process = subprocess.Popen([*command, address], cwd=directory, stdout=log, stderr=log)

    def __call__(self, query: str) -> dict[str, float]:
        """The values of a query now, by the `__name__` of their series; empty while there are none."""
        try:
            answer = httpx.get(f"{self._url}/api/v1/query", params={"query": query}, timeout=20)
        except httpx.ConnectError:
            return {}
        if answer.status_code != 200:
            return {}
        results = answer.json()["data"]["result"]
        return {result["metric"].get("__name__", ""): float(result["value"][1]) for result in results}

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def prometheus(tmp_path: Path, server: HeadraceServer) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path, server)
    yield running
    running.stop()


def test_prometheus_finds_what_was_counted(server: HeadraceServer, prometheus: Prometheus) -> None:
    model = server.client().models.list().data[0].id
    server.client().completions.create(model=model, prompt="Prometheus", max_tokens=8)
    wait_until(lambda: prometheus("up") == {"up": 1})
    expected = scrape(server.url)("vllm:generation_tokens_total")
    wait_until(lambda: prometheus("vllm:generation_tokens_total") == {"vllm:generation_tokens_total": expected})
    found = prometheus('{__name__=~"(vllm|headrace):.+"}')
    assert found.keys() == {
        sample.name for family in scrape(server.url).families for sample in family.samples if ":" in sample.name
    }
