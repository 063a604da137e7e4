"""`headrace plan prices`: the prices that plans are costed with, and how they are renewed."""

from collections.abc import Callable, Mapping

import typer

from headrace.cli.grouped_help import command_group
from headrace.cli.prices.refresh import refresh
from headrace.cli.prices.show import show

_COMMANDS: Mapping[Callable[..., None], str] = {
    show: "The prices, each with its date and source.",
    refresh: "Ask AWS, Azure and Google for today's prices.",
}
"""Command -> what the list of commands says of it."""


def prices_app() -> typer.Typer:
    """The group of commands about prices."""
    return command_group("See or renew the prices that plans are costed with.", _COMMANDS)
