"""A server that other people's clients talk to, with a key, as such servers have."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from headrace_server import HeadraceServer


@dataclass(frozen=True)
class Served:
    """What a client is configured with."""

    url: str
    key: str
    model: str

    @property
    def arguments(self) -> tuple[str, str, str]:
        """What the clients' programs are started with."""
        return self.url, self.key, self.model


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The embedded model under a name of its own, behind a key."""
    directory = tmp_path_factory.mktemp("clients")
    server = HeadraceServer(directory, "--api-key", "secret", "--served-model-name", "tiny")
    try:
        yield Served(f"{server.wait_ready().url}/v1", "secret", "tiny")
    finally:
        server.stop()
