"""Help with the flags in groups, in plain text: it is read in terminals, in logs and by other programs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer
import typer.core

ARGUMENTS, OTHER = "Arguments", "Options"
SETTINGS = {"max_content_width": 110, "help_option_names": ["-h", "--help"]}
"""What every command's context is made with."""


class GroupedCommand(typer.core.TyperCommand):
    """A command whose help has a section for each `rich_help_panel`, in the order in which they first come."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections: what is positional first, what has no group last."""
        sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(_section(param), []).append(record)
        other = sections.pop(OTHER, [])
        for title, records in [*sections.items(), (OTHER, other)]:
            _write(formatter, title, records)


def command_group(help_text: str, commands: Mapping[Callable[..., None], str]) -> typer.Typer:
    """A group of commands, each with what the list of them says of it."""
    app = typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, context_settings=SETTINGS)
    for command, summary in commands.items():
        app.command(cls=GroupedCommand, context_settings=SETTINGS, short_help=summary)(command)
    return app


def _section(param: Any) -> str:
    if param.param_type_name == "argument":
        return ARGUMENTS
    return getattr(param, "rich_help_panel", None) or OTHER


def _write(formatter: Any, title: str, records: Sequence[tuple[str, str]]) -> None:
    if records:
        with formatter.section(title):
            formatter.write_dl(records)
