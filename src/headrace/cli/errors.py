"""How a command ends when something is wrong: what, which rule and what to do, in a few lines, without a traceback."""

import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import typer

from headrace.cli.plan_group import is_plan_group
from headrace.cli.python_words import as_flags
from headrace.cli.suggestions import FLAGS_TO_LEAVE_OUT, meant_command, meant_flag
from headrace.core.config import instead_of
from headrace.core.errors import HeadraceError, not_yet

USER_ERROR, OTHER_ERROR, INTERRUPTED = 2, 1, 130

_SERVER_FLAGS = {
    "--enable-auto-tool-choice": "Leave it out: tool calls are not built yet",
    "--tool-call-parser": "Leave it out: tool calls are not built yet",
    "--reasoning-parser": "Leave it out: reasoning stays in the answer's text",
}
"""vLLM's flags for a server that are known and not built yet -> what to do instead."""

# typer does not name the classes of the parser that it builds on, which has moved between its versions.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def report(error: HeadraceError) -> int:
    """Print the error; the exit status."""
    error = as_flags(error)
    print(f"error: {error.what}", file=sys.stderr)
    for label, text in (("rule", error.rule), ("fix", error.fix)):
        if text:
            print(f"  {label}: {text}", file=sys.stderr)
    return USER_ERROR if error.kind.value < 500 else OTHER_ERROR


def report_usage(error: Exception, arguments: Sequence[str]) -> int:
    """Print what is wrong with a command line, and what was probably meant; the exit status.

    A flag that is known but not built yet is refused by name. `arguments` are what was typed.
    """
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        print(context.get_help(), file=sys.stderr)
        return USER_ERROR
    return report(_explained(error, context, arguments))


def _explained(error: Exception, context: Any, arguments: Sequence[str]) -> HeadraceError:
    """The parser's error in our words; `context` is the parser's, and knows the command."""
    message = getattr(error, "format_message", error.__str__)()
    command = context.command_path if context is not None else _command(arguments)
    help_fix = f"See `{command} --help`"
    if isinstance(flag := getattr(error, "option_name", None), str) and "o such option" in message:
        return _unknown_flag(_as_typed(flag, arguments), context, command, help_fix)
    if (unknown := re.match(r"No such command '(.*?)'", message)) is not None:
        meant = meant_command(unknown[1], context.command.commands) if context is not None else None
        fix = f"Did you mean `{command} {meant}`? {help_fix} for all" if meant else help_fix
        return HeadraceError(f"{unknown[1]!r} is not a command of {command}", fix=fix)
    return HeadraceError(message.rstrip("."), fix=help_fix)


def _command(arguments: Sequence[str]) -> str:
    """The command that was typed, where the parser does not say."""
    words = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    depth = 2 if words[:1] == ["bench"] or is_plan_group(words) else 1
    return " ".join(["headrace", *words[:depth]])


def _unknown_flag(flag: str, context: Any, command: str, help_fix: str) -> HeadraceError:
    if (refusal := _refusal(flag)) is not None:
        return refusal
    params = context.command.params if context is not None else []
    flags = [name for param in params if not getattr(param, "hidden", False) for name in param.opts if name[:1] == "-"]
    if (reason := FLAGS_TO_LEAVE_OUT.get(flag)) is not None:
        return HeadraceError(f"{flag} is not a flag of `{command}`", fix=f"Leave it out: {reason}")
    meant = meant_flag(flag, flags)
    fix = f"Did you mean {meant}? {help_fix} for all" if meant else help_fix
    return HeadraceError(f"{flag} is not a flag of `{command}`", fix=fix)


def _as_typed(flag: str, arguments: Sequence[str]) -> str:
    """The parser takes -tp for -t and -p: the whole of what was typed."""
    whole = [argument.partition("=")[0] for argument in arguments if argument.startswith(flag)]
    return whole[0] if len(flag) == 2 and whole else flag


def _refusal(flag: str) -> HeadraceError | None:
    """The refusal of a flag that the server or the engine knows by name; None if neither does."""
    fix = _SERVER_FLAGS.get(flag) or instead_of(flag.strip("-").replace("-", "_"))
    return not_yet(flag, fix) if fix is not None else None
