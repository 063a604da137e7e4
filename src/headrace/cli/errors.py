"""How a command ends when something is wrong: what, which rule and what to do, in a few lines, without a traceback."""

import sys

import typer

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError, not_yet

USER_ERROR, OTHER_ERROR, INTERRUPTED = 2, 1, 130

_SERVER_FLAGS = {
    "--api-key": "Leave it out and keep the server on 127.0.0.1, or put a proxy before it that asks for the key",
    "--ssl-keyfile": "Leave it out, and put a proxy before the server that speaks TLS",
    "--ssl-certfile": "Leave it out, and put a proxy before the server that speaks TLS",
    "--root-path": "Leave it out, and let the proxy remove the prefix",
    "--allowed-origins": "Leave it out, and let a proxy add the headers",
    "--enable-auto-tool-choice": "Leave it out: tool calls are not built yet",
    "--tool-call-parser": "Leave it out: tool calls are not built yet",
    "--reasoning-parser": "Leave it out: reasoning stays in the answer's text",
}
"""vLLM's flags for a server that are known and not built yet -> what to do instead."""

# typer does not name the classes of the parser that it builds on, which has moved between its versions.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def report(error: HeadraceError) -> int:
    """Print the error; the exit status."""
    print(f"error: {error.what}", file=sys.stderr)
    for label, text in (("rule", error.rule), ("fix", error.fix)):
        if text:
            print(f"  {label}: {text}", file=sys.stderr)
    return USER_ERROR if error.kind.value < 500 else OTHER_ERROR


def report_usage(error: Exception) -> int:
    """Print what is wrong with a command line; a flag that is known but not built yet is refused by name."""
    flag = getattr(error, "option_name", None)
    refusal = _refusal(flag) if isinstance(flag, str) else None
    if refusal is not None:
        return report(refusal)
    message = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    print(f"error: {message}", file=sys.stderr)
    if context is not None:
        print(f"  fix: See `{context.command_path} --help`", file=sys.stderr)
    return USER_ERROR


def _refusal(flag: str) -> HeadraceError | None:
    """The refusal of a flag that the server or the engine knows by name; None if neither does."""
    if flag in _SERVER_FLAGS:
        return not_yet(flag, _SERVER_FLAGS[flag])
    try:
        EngineConfig.from_kwargs(**{flag.strip("-").replace("-", "_"): True})
    except HeadraceError as error:
        return error if error.what.endswith("not supported yet") else None
    return None
