"""A server's address as people write it: with or without /v1, with or without a path of a proxy before it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from headrace.core.errors import ErrorKind, HeadraceError


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """`url` is what was given; `root` is the path before /v1, empty or beginning with a slash."""

    url: str
    host: str
    port: int
    https: bool = False
    root: str = ""
    unix_path: str | None = None
    """A Unix socket to connect to, instead of host and port."""

    @classmethod
    def parse(cls, url: str) -> "ServerAddress":
        """The address in `url`. Raises `HeadraceError` for what is none."""
        try:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https") and parts.hostname:
                https = parts.scheme == "https"
                root = parts.path.rstrip("/").removesuffix("/v1")
                return cls(url, parts.hostname, parts.port or (443 if https else 80), https, root)
        except ValueError:  # a port that is no number, or beyond 65535
            pass
        raise HeadraceError(f"{url!r} is not a server's address", fix="Use for example http://127.0.0.1:8000")

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.https else 80) else f"{host}:{self.port}"

    def unreachable(self, error: Exception) -> HeadraceError:
        """The error for a server that gives no answer."""
        fix = "Start a server, for example with `headrace serve`, or check the address"
        if "certificate" in str(error).lower():
            fix = "Name the file with the certificate to trust in the environment variable SSL_CERT_FILE"
        return HeadraceError(f"There is no answer from {self.url}: {error}", fix=fix, kind=ErrorKind.UNAVAILABLE)
