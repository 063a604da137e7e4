"""The command line: `headrace COMMAND`. A command's own imports happen when it runs, so that --help is quick."""

from typing import Annotated

import typer

from headrace import __version__
from headrace.cli.bench import bench_app
from headrace.cli.chat import chat
from headrace.cli.errors import INTERRUPTED, UsageError, report, report_usage
from headrace.cli.serve import serve
from headrace.core.errors import HeadraceError


def main() -> int:
    """Run the command line; the exit status."""
    try:
        status = _app()(standalone_mode=False)
    except HeadraceError as error:
        return report(error)
    except UsageError as error:
        return report_usage(error)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _app() -> typer.Typer:
    app = typer.Typer(
        name="headrace",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_headrace)
    app.command()(serve)
    app.command()(chat)
    app.add_typer(bench_app(), name="bench")
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
    """Serve language models: one command to a server that speaks OpenAI's API."""
