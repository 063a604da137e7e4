"""Who may call which route. Keys are compared by their digests and in constant time; none is ever written anywhere."""

import hashlib
import hmac
from collections.abc import Iterable

from headrace.core.errors import ErrorKind
from headrace.server.errors import ApiError
from headrace.server.http import Exchange
from headrace.server.options import ServerOptions
from headrace.server.route import Access

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="headrace"'}
_FROM_ELSEWHERE = (b"origin", b"forwarded", b"x-forwarded-for")
"""What browsers and proxies send, and programs on the same machine do not."""


class Keys:
    """A set of keys that does not hold the keys themselves."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def has(self, key: bytes) -> bool:
        """Whether `key` is one of them; takes as long whichever it is."""
        digest = _digest(key)
        return sum([hmac.compare_digest(digest, each) for each in self._digests]) > 0


class Guard:
    """Lets requests through to a route, or raises why not. The admin key opens everything."""

    def __init__(self, options: ServerOptions) -> None:
        self._keys = Keys(options.api_key)
        self._admin_keys = Keys([options.admin_key] if options.admin_key is not None else [])
        self._local_only = options.local_only

    def check(self, access: Access, exchange: Exchange) -> None:
        """Raise a 401 or a 403 unless `exchange` may use a route of this `access`."""
        if access is Access.KEY:
            self._check_key(exchange)
        elif access is Access.ADMIN:
            self._check_admin(exchange)

    def _check_admin(self, exchange: Exchange) -> None:
        if self._admin_keys:
            if not self._admin_keys.has(_bearer(exchange)):
                raise _wrong_key("admin key", "--admin-key", exchange)
        elif not self._local_only or any(exchange.header(name) is not None for name in _FROM_ELSEWHERE):
            raise ApiError(
                f"{exchange.path} changes the server, and there is no admin key",
                rule="Without one, only programs on the server's own machine may do that: no web page, and no proxy",
                fix="Start the server with --admin-key, or listen on 127.0.0.1 and ask there without a proxy",
                kind=ErrorKind.FORBIDDEN,
                code="admin_key_required",
            )
        else:
            self._check_key(exchange)

    def _check_key(self, exchange: Exchange) -> None:
        if not self._keys:
            return
        key = _bearer(exchange)
        if not (self._keys.has(key) or self._admin_keys.has(key)):
            raise _wrong_key("API key", "--api-key", exchange)


def _wrong_key(name: str, flag: str, exchange: Exchange) -> ApiError:
    sent = exchange.header(b"authorization") is not None
    what = f"The {name} that was sent is not one of this server's" if sent else f"No {name} was sent"
    fix = f"Send the header 'Authorization: Bearer KEY' with a key that the server was given by {flag}"
    return ApiError(what, rule="This route needs one", fix=fix, kind=ErrorKind.UNAUTHORIZED, headers=_CHALLENGE)


def _bearer(exchange: Exchange) -> bytes:
    scheme, _, key = (exchange.header(b"authorization") or b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
