"""A command's own settings as a frozen dataclass whose fields are its flags: name, type, default and help together."""

from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from typing import Annotated, Any, get_args, get_type_hints

import typer

from headrace.cli.flags import Command, flag_parameter, with_flags


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is shown: `field: Annotated[int, Flag("Help.", "Panel")] = 5`; a tuple can be given repeatedly.

    `spelling` has one or more, by default that of the field's name. `environment` names variables that it is read from,
    too.
    """

    help: str
    panel: str
    spelling: str = ""
    environment: tuple[str, ...] = ()


def with_options(kind: type[Any]) -> Callable[[Command], Command]:
    """Give a command all flags of the dataclass `kind`, whose instance becomes its parameter `options`."""
    hints = get_type_hints(kind, include_extras=True)
    flags = [flag_parameter(each.name, _annotation(each, hints[each.name])) for each in fields(kind)]

    def make(given: dict[str, Any]) -> object:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})

    return lambda command: with_flags(command, "options", flags, make)


def _annotation(each: "Field[Any]", hint: Any) -> Any:
    """None stands for "not given", so that the default lives in the dataclass alone."""
    hint, flag = get_args(hint)
    default = f"{each.default:g}" if isinstance(each.default, float) else each.default
    shown = "" if each.default in (None, (), "", False) else f" [default: {default}]"
    repeated = isinstance(each.default, tuple)
    option = typer.Option(
        *(flag.spelling.split() or ["--" + each.name.replace("_", "-")]),
        help=flag.help + shown,
        envvar=list(flag.environment) or None,
        rich_help_panel=flag.panel,
        metavar="VALUE ..." if repeated else None,
        show_default=False,
    )
    return Annotated[list[str] | None if repeated else hint | None, option]
