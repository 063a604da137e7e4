"""The command line: `headrace COMMAND`. A command's own imports happen when it runs, so that --help is quick."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from headrace import __version__
from headrace.cli.batch.command import run_batch
from headrace.cli.bench import bench_app
from headrace.cli.chat import chat
from headrace.cli.errors import INTERRUPTED, UsageError, report, report_usage
from headrace.cli.flags import repeat_flags
from headrace.cli.grouped_help import SETTINGS, GroupedCommand
from headrace.cli.plan import plan
from headrace.cli.plan_group import is_plan_group, plan_app
from headrace.cli.serve import serve
from headrace.cli.server_options import repeated_flags
from headrace.core.errors import HeadraceError

_COMMANDS = {
    serve: "Serve a model over HTTP, with OpenAI's API.",
    chat: "Talk to a model, or to a server, in the terminal.",
    plan: "Say what it takes to serve a model: memory, GPU, flags.",
    run_batch: "Answer the requests of an OpenAI batch file.",
}
"""Command -> what the list of commands says of it."""


def main() -> int:
    """Run the command line; the exit status."""
    try:
        arguments = _arguments()
        status = _app(arguments)(arguments, prog_name="headrace", standalone_mode=False)
    except HeadraceError as error:
        return report(error)
    except UsageError as error:
        return report_usage(error, sys.argv[1:])
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _arguments() -> list[str]:
    match sys.argv[1:]:
        case ["serve", *rest]:
            return ["serve", *repeat_flags(rest, repeated_flags())]
        case ["bench", "serve", *rest]:
            return ["bench", "serve", *repeat_flags(rest, ("--goodput",), takes_model=False)]
        case arguments:
            return arguments


def _app(arguments: Sequence[str]) -> typer.Typer:
    """The command line that `arguments` are for: what follows `plan` says whether that is a command or a group."""
    app = typer.Typer(
        name="headrace",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=SETTINGS,
    )
    app.callback()(_headrace)
    for command, summary in _COMMANDS.items():
        if command is not plan or not is_plan_group(arguments):
            app.command(cls=GroupedCommand, context_settings=SETTINGS, short_help=summary)(command)
    app.add_typer(bench_app(), name="bench")
    if is_plan_group(arguments):
        app.add_typer(plan_app(), name="plan")
    return app


def _show_version(asked: bool) -> None:
    if asked:
        print(f"headrace {__version__}")
        raise typer.Exit


def _headrace(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Run language models: one command to a server that speaks OpenAI's API.

    \b
    To begin:
      headrace serve                 a small model, in seconds, at http://127.0.0.1:8000/v1
      headrace chat                  talk to one in this terminal
      headrace serve MODEL           your own: a directory, a .gguf file or a Hugging Face id

    `headrace COMMAND --help` explains each command.
    """
