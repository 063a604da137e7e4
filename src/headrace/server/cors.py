"""Cross-origin requests: which web pages may read answers. Costs a stream nothing but two headers at its start."""

from headrace.server.http import Exchange
from headrace.server.options import EVERY, ServerOptions

Headers = list[tuple[bytes, bytes]]

MAX_AGE_SECONDS = 600


class Cors:
    """The rules of one server. https://fetch.spec.whatwg.org/#http-cors-protocol"""

    def __init__(self, options: ServerOptions) -> None:
        self._origins = frozenset(origin.encode() for origin in options.allowed_origins)
        self._every_origin = EVERY in options.allowed_origins
        self._methods = _listed(options.allowed_methods, every="GET, HEAD, POST, OPTIONS")
        self._headers = None if EVERY in options.allowed_headers else _listed(options.allowed_headers, every="")
        self._credentials = options.allow_credentials

    def headers(self, exchange: Exchange) -> Headers:
        """What an answer to `exchange` carries; nothing if it is not from a page that may read it."""
        if not self._origins:
            return []
        if self._every_origin:
            return [(b"access-control-allow-origin", b"*")]
        origin = exchange.header(b"origin")
        if origin not in self._origins or origin is None:
            return [(b"vary", b"Origin")]
        allowed = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        return [*allowed, (b"access-control-allow-credentials", b"true")] if self._credentials else allowed

    def is_preflight(self, exchange: Exchange) -> bool:
        """Whether a browser asks what it may do, to which the answer is `preflight_headers`."""
        if not self._origins or exchange.method != "OPTIONS":
            return False
        return exchange.header(b"origin") is not None and exchange.header(b"access-control-request-method") is not None

    def preflight_headers(self, exchange: Exchange) -> dict[str, str]:
        """What a page may do, in addition to `headers`."""
        wanted = exchange.header(b"access-control-request-headers") or b""
        headers = wanted if self._headers is None else self._headers
        return {
            "Access-Control-Allow-Methods": self._methods.decode(),
            "Access-Control-Allow-Headers": headers.decode("latin-1"),
            "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
        }


def _listed(values: tuple[str, ...], *, every: str) -> bytes:
    return (every if EVERY in values else ", ".join(values)).encode()
