"""By which names a server may be called: a web page whose own name is made to lead here must not be answered.

Whoever owns a name can have it mean 127.0.0.1 (DNS rebinding); the browser then takes our answers for theirs. It still
sends their name in the Host header.
"""

import ipaddress

from headrace.core.errors import ErrorKind
from headrace.server.errors import ApiError
from headrace.server.http import Exchange
from headrace.server.options import EVERY, LOOPBACK, ServerOptions


class Hosts:
    """The names: those of the options, and loopback's. Where keys or other machines are let in, every name is fine."""

    def __init__(self, options: ServerOptions) -> None:
        given = frozenset(name.lower() for name in options.allowed_hosts)
        unguarded = options.local_only and not options.api_key
        self._every_name = EVERY in given or not (given or unguarded)
        self._names = given.union(LOOPBACK)

    def check(self, exchange: Exchange) -> None:
        """Raise a 403 if `exchange` calls the server by another name, a 400 if HTTP/1.1 has none or several.

        Programs that send none by HTTP/1.0, or an empty one, are no browsers. What stands before this server may heed
        another of several names than it does (RFC 9112, 3.2).
        """
        given = exchange.headers(b"host")
        if len(given) != 1 and (given or exchange.http_version == "1.1"):
            raise _not_one(len(given))
        if self._every_name or not given:
            return
        host = given[0].decode("latin-1").strip().lower()
        name = _without_port(host)
        if not name or name in self._names or _is_loopback(name):
            return
        raise ApiError(
            f"The Host header is {host!r}",
            rule="This server is called localhost, by a loopback address, or by a name given with --allowed-hosts",
            fix=f"Start it with --allowed-hosts {name} or, for other machines too, with --host and --api-key",
            kind=ErrorKind.FORBIDDEN,
            code="host_not_allowed",
        )


def _not_one(count: int) -> ApiError:
    what = f"There are {count} Host headers" if count else "There is no Host header"
    code = "host_repeated" if count else "host_missing"
    return ApiError(what, rule="HTTP/1.1 requires one", fix="Send 'Host: ' with the server's name once", code=code)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
