"""How a command ends when something is wrong: what, which rule and what to do, in a few lines, without a traceback."""

import sys

import typer

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError

USER_ERROR, OTHER_ERROR, INTERRUPTED = 2, 1, 130

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
    """What the engine says of a flag that it knows by name; None if it does not."""
    try:
        EngineConfig.from_kwargs(**{flag.strip("-").replace("-", "_"): True})
    except HeadraceError as error:
        return error if error.what.endswith("not supported yet") else None
    return None
