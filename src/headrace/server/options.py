"""Every setting of the HTTP server, checked once, frozen after. `headrace serve` makes its flags of the fields."""

import math
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from headrace.core.errors import HeadraceError

LogLevel = Literal["critical", "error", "warning", "info", "debug", "trace"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
EVERY = "*"
MAX_SECONDS = 86_400.0


def flag_of(name: str) -> str:
    """The command line's name of a field: `max_body_bytes` is --max-body-bytes; seconds go without saying."""
    return "--" + name.removesuffix("_seconds").replace("_", "-")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the HTTP side is told. Names are those of vLLM's flags; a tuple is a flag that can be repeated.

    An empty `served_model_name` stands for the model's own. `api_key` opens the routes of the API, `admin_key` those
    that change the server; without it, a server on loopback lets its own machine's programs change it, with an API key
    if there are any. `allowed_hosts` are names to be called by besides loopback's; without them a server on loopback
    that asks for no key has loopback's alone, and others have every name. Without `allowed_origins` no CORS header is
    sent, so no web page elsewhere can read answers. `root_path` is the prefix under which a proxy shows the server.
    """

    host: str = "127.0.0.1"
    port: int = 8_000
    served_model_name: tuple[str, ...] = ()
    api_key: tuple[str, ...] = field(default=(), repr=False)
    admin_key: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allowed_methods: tuple[str, ...] = (EVERY,)
    allowed_headers: tuple[str, ...] = (EVERY,)
    allow_credentials: bool = False
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_ca_certs: str | None = None
    ssl_cert_reqs: int = ssl.CERT_NONE.value
    root_path: str = ""
    max_body_bytes: int = 8 * 2**20
    request_header_timeout_seconds: float = 10.0
    request_body_timeout_seconds: float = 60.0
    reader_stall_timeout_seconds: float = 60.0
    timeout_keep_alive_seconds: float = 5.0
    shutdown_timeout_seconds: float = 25.0
    max_num_queued_reqs: int = 1_024
    max_num_queued_tokens: int = 1_048_576
    max_queue_time_seconds: float = 10.0
    max_engine_restarts: int = 3
    engine_hang_timeout_seconds: float = 300.0
    uvicorn_log_level: LogLevel = "warning"
    disable_uvicorn_access_log: bool = False

    def __post_init__(self) -> None:
        self._check_address()
        self._check_texts()
        self._check_ssl()
        _integer("max_body_bytes", self.max_body_bytes, 1_024, 2**40)
        for name in ("request_header_timeout_seconds", "request_body_timeout_seconds", "timeout_keep_alive_seconds"):
            _seconds(name, getattr(self, name), above=0.0)
        for name in (
            "shutdown_timeout_seconds",
            "max_queue_time_seconds",
            "engine_hang_timeout_seconds",
            "reader_stall_timeout_seconds",
        ):
            _seconds(name, getattr(self, name))
        for name in ("max_num_queued_reqs", "max_num_queued_tokens", "max_engine_restarts"):
            _integer(name, getattr(self, name), 0, 2**40)
        _choice("uvicorn_log_level", self.uvicorn_log_level, get_args(LogLevel))

    @property
    def local_only(self) -> bool:
        """Whether only programs on this machine can reach the server."""
        return self.host in LOOPBACK or self.host.startswith("127.")

    @property
    def tls(self) -> bool:
        """Whether the server speaks HTTPS."""
        return self.ssl_certfile is not None

    def _check_address(self) -> None:
        if not self.host:
            raise HeadraceError(
                f"The host is {self.host!r}",
                rule="It is the address to listen on",
                fix="Use 127.0.0.1 for this machine only, 0.0.0.0 for every interface",
                param="host",
            )
        _integer("port", self.port, 0, 65_535)
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise HeadraceError(
                f"--root-path is {self.root_path!r}",
                rule="It must begin with a slash and not end with one",
                fix="For example /llm",
                param="root_path",
            )

    def _check_texts(self) -> None:
        for name in ("served_model_name", "allowed_methods", "allowed_headers"):
            for text in getattr(self, name):
                _not_empty(name, text)
        for host in self.allowed_hosts:
            _host(host)
        for origin in self.allowed_origins:
            _origin(origin)
        if self.allow_credentials and EVERY in self.allowed_origins:
            raise HeadraceError(
                "--allow-credentials is set and --allowed-origins has '*'",
                rule="Any web page could then act in a user's name",
                fix="Name the origins, for example --allowed-origins https://app.example",
                param="allow_credentials",
            )
        for name, keys in (
            ("api_key", self.api_key),
            ("admin_key", () if self.admin_key is None else (self.admin_key,)),
        ):
            for key in keys:
                _key(name, key)

    def _check_ssl(self) -> None:
        _choice("ssl_cert_reqs", self.ssl_cert_reqs, [each.value for each in ssl.VerifyMode])
        given = [name for name in ("ssl_keyfile", "ssl_ca_certs") if getattr(self, name) is not None]
        if given and not self.tls:
            raise HeadraceError(
                f"{flag_of(given[0])} is given without --ssl-certfile",
                rule="HTTPS needs a certificate",
                fix="Pass --ssl-certfile too",
                param="ssl_certfile",
            )
        if self.ssl_cert_reqs and self.ssl_ca_certs is None:
            raise HeadraceError(
                f"--ssl-cert-reqs is {self.ssl_cert_reqs} and there is no --ssl-ca-certs",
                rule="Clients' certificates are checked against it",
                fix="Pass the certificates of who signs your clients' as --ssl-ca-certs",
                param="ssl_ca_certs",
            )


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return
    raise HeadraceError(
        f"{flag_of(name)} is {value!r}", rule=f"It must be an integer between {low} and {high}", param=name
    )


def _seconds(name: str, value: float, *, above: float = -math.inf) -> None:
    if 0.0 <= value <= MAX_SECONDS and value > above:
        return
    bounds = f"between 0 and {MAX_SECONDS:g} seconds" + (", and not 0" if above == 0.0 else "")
    raise HeadraceError(f"{flag_of(name)} is {value:g}", rule=f"It must be {bounds}", param=name)


def _choice(name: str, value: object, choices: Collection[object]) -> None:
    if value not in choices:
        rule = f"It must be one of {', '.join(map(str, choices))}"
        raise HeadraceError(f"{flag_of(name)} is {value!r}", rule=rule, param=name)


def _not_empty(name: str, text: str) -> None:
    if not text:
        raise HeadraceError(f"{flag_of(name)} is {text!r}", rule="It may not be empty", param=name)


def _key(name: str, key: str) -> None:
    """A key that could never arrive in a header would lock everybody out. The message does not show it."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise HeadraceError(
            f"A key given with {flag_of(name)} is empty, or has characters that a header cannot carry",
            rule="It must be of printable ASCII characters without spaces",
            fix="For example: openssl rand -hex 32",
            param=name,
        )


def _host(host: str) -> None:
    if host == EVERY or (host and host.isascii() and not any(each in ":/[]* " for each in host)):
        return
    raise HeadraceError(
        f"--allowed-hosts has {host!r}",
        rule="It must be a host's name without scheme or port",
        fix="For example llm.example, or '*' for all",
        param="allowed_hosts",
    )


def _origin(origin: str) -> None:
    parts = urlsplit(origin)
    if origin == EVERY or (parts.scheme and parts.netloc and origin == f"{parts.scheme}://{parts.netloc}"):
        return
    raise HeadraceError(
        f"--allowed-origins has {origin!r}",
        rule="An origin is a scheme, a host and, where it is not the usual one, a port",
        fix="For example https://app.example or http://localhost:3000, or '*' for all",
        param="allowed_origins",
    )
