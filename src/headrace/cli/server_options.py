"""The server's settings as command-line flags, made from `ServerOptions`; only the help is written here."""

import inspect
import json
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from headrace.cli.engine_environment import KEY_VARIABLES
from headrace.cli.flags import Command, flag_parameter, with_flags
from headrace.core.errors import HeadraceError
from headrace.server.options import ServerOptions, flag_of

SERVER, ACCESS, LIMITS, LIFE = "Server", "Access: keys, HTTPS, web pages", "Limits", "Faults and logs"

_HELP = {
    "host": "Address to listen on; 0.0.0.0 for all.",
    "port": "Port to listen on; 0 for any free one.",
    "served_model_name": "Names in the API, the first of which answers carry; by default the model's. Can be repeated.",
    "api_key": "Keys that requests must carry, one of them, as Authorization: Bearer KEY. Can be repeated.",
    "admin_key": "Key for what changes the server; without one, only programs beside a server on 127.0.0.1 may.",
    "allowed_hosts": "Names to be called by, or '*' for all. By default localhost alone where no key is needed.",
    "allowed_origins": "Web pages that may read answers (CORS): origins, or '*' for all. By default none.",
    "allowed_methods": "Methods that those pages may use. [default: *]",
    "allowed_headers": "Headers that those pages may send. [default: *]",
    "allow_credentials": "Let those pages send cookies.",
    "ssl_keyfile": "The certificate's private key, if it is not in the same file.",
    "ssl_certfile": "Certificate (PEM); with it the server speaks HTTPS.",
    "ssl_ca_certs": "Certificates of who signs clients' certificates.",
    "ssl_cert_reqs": "Clients' certificates: 0 not asked for, 1 checked if there is one, 2 required.",
    "root_path": "Prefix under which a proxy shows the server.",
    "max_body_bytes": "Largest request body; 413 for more.",
    "request_header_timeout_seconds": "Seconds in which the head of a request must have come.",
    "request_body_timeout_seconds": "Seconds in which its body must have come.",
    "reader_stall_timeout_seconds": "Seconds after which a client that reads nothing is dropped; 0 for never.",
    "timeout_keep_alive_seconds": "Seconds after which a connection without requests is closed.",
    "shutdown_timeout_seconds": "Seconds that open requests get to finish after Ctrl-C or SIGTERM.",
    "max_num_queued_reqs": "Most requests that wait for their first token, 429 for more; 0 for no limit.",
    "max_num_queued_tokens": "Most tokens of work that wait, 429 for more; 0 for no limit.",
    "max_queue_time_seconds": "Longest that a request probably waits for its first token, 429 for more; 0 for any.",
    "max_engine_restarts": "How often a lost engine is started again within five minutes, before the server ends.",
    "engine_hang_timeout_seconds": "Seconds of /health being 503 until a hanging engine is started again; 0: never.",
    "uvicorn_log_level": "critical, error, warning, info, debug or trace; from info on, each request is logged.",
    "disable_uvicorn_access_log": "Do not log each request, whatever the level.",
}
_PANELS = {
    SERVER: ("host", "port", "served_model_name", "root_path"),
    LIMITS: (
        "max_body_bytes",
        "max_num_queued_reqs",
        "max_num_queued_tokens",
        "max_queue_time_seconds",
        "request_header_timeout_seconds",
        "request_body_timeout_seconds",
        "reader_stall_timeout_seconds",
        "timeout_keep_alive_seconds",
    ),
    LIFE: (
        "shutdown_timeout_seconds",
        "max_engine_restarts",
        "engine_hang_timeout_seconds",
        "uvicorn_log_level",
        "disable_uvicorn_access_log",
    ),
}
"""Section of the help -> its flags; the rest are about access."""


def with_server_options(command: Command) -> Command:
    """Give a command all flags of the server. Its parameter `server` becomes the `ServerOptions` that they make."""
    return with_flags(command, "server", [_flag(each) for each in fields(ServerOptions)], server_options)


def server_options(given: dict[str, Any]) -> ServerOptions:
    """The settings for the flags that were given. Raises `HeadraceError` for a wrong one."""
    lists = {name: _texts(name, value) for name, value in given.items() if isinstance(value, list)}
    return ServerOptions(**(given | lists))


def repeated_flags() -> list[str]:
    """The flags that take several values."""
    return [flag_of(each.name) for each in fields(ServerOptions) if _is_repeated(each)]


def _texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """One value each, or a JSON list, as vLLM takes the flags of CORS."""
    texts: list[str] = []
    for value in values:
        texts += _json_list(name, value) if value.startswith("[") else [value]
    return tuple(texts)


def _json_list(name: str, value: str) -> list[str]:
    try:
        texts = json.loads(value)
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise HeadraceError(
            f"{flag_of(name)} is {value!r}",
            rule="What begins with [ is read as a JSON list of strings",
            fix=f"""For example {flag_of(name)} '["a", "b"]', or {flag_of(name)} a b""",
            param=name,
        )
    return texts


def _flag(each: "Field[Any]") -> inspect.Parameter:
    """None stands for "not given", so that the default lives in `ServerOptions` alone."""
    shown = "" if each.default in (None, (), "", False, ("*",)) else f" [default: {each.default}]"
    spelling = flag_of(each.name) + (f"/--no-{flag_of(each.name)[2:]}" if isinstance(each.default, bool) else "")
    option = typer.Option(
        spelling,
        help=_HELP[each.name] + shown,
        metavar="VALUE ..." if _is_repeated(each) else None,
        envvar=KEY_VARIABLES.get(each.name),
        rich_help_panel=next((panel for panel, names in _PANELS.items() if each.name in names), ACCESS),
        show_default=False,
    )
    return flag_parameter(each.name, Annotated[_kind(each) | None, option])


def _kind(each: "Field[Any]") -> Any:
    if _is_repeated(each):
        return list[str]
    return str if each.default is None else type(each.default)


def _is_repeated(each: "Field[Any]") -> bool:
    return isinstance(each.default, tuple)
