"""`headrace plan compare` and `headrace plan prices`: beside `headrace plan MODEL`, told by the word after `plan`."""

from collections.abc import Sequence

import typer

from headrace.cli.grouped_help import SETTINGS, GroupedCommand

_GROUP = ("compare", "prices")


def is_plan_group(arguments: Sequence[str]) -> bool:
    """Whether what was typed is one of these commands. A model of such a name is written with its path."""
    return list(arguments[:1]) == ["plan"] and arguments[1:2] != [] and arguments[1] in _GROUP


def plan_app() -> typer.Typer:
    """The commands."""
    from headrace.cli.plan_compare import compare
    from headrace.cli.prices import prices_app

    app = typer.Typer(
        help="Plan for a model, compare plans, or see what GPUs cost.", rich_markup_mode=None, context_settings=SETTINGS
    )
    summary = "Plans side by side: models, GPUs, formats."
    app.command(cls=GroupedCommand, context_settings=SETTINGS, short_help=summary)(compare)
    app.add_typer(prices_app(), name="prices")
    return app
