"""Fixtures of the system tests: servers as their users run them. `make test-system` runs this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from headrace_server import HeadraceServer

StartServer = Callable[..., HeadraceServer]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with flags of their own, one test long."""
    running: list[HeadraceServer] = []

    def start(*flags: str) -> HeadraceServer:
        directory = tmp_path / f"server-{len(running)}"
        directory.mkdir()
        running.append(HeadraceServer(directory, *flags))
        return running[-1].wait_ready()

    yield start
    for server in running:
        _end(server)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadraceServer]:
    """A server with the embedded model and no flags, for tests that leave it as they found it."""
    running = HeadraceServer(tmp_path_factory.mktemp("server"))
    yield running.wait_ready()
    _end(running)


def _end(server: HeadraceServer) -> None:
    """By force if need be, so that nothing outlives its test."""
    try:
        server.stop()
    finally:
        server.process.kill()
        server.process.wait()
