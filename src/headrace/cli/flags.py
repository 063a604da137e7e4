"""Flags that are made from a configuration's fields, and flags that take several values after one name."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headrace.core.config import EMBEDDED_MODEL
from headrace.core.errors import HeadraceError

Command = Callable[..., None]


def with_flags(
    command: Command, name: str, flags: Sequence[inspect.Parameter], make: Callable[[dict[str, Any]], object]
) -> Command:
    """`command` with `flags` in place of its parameter `name`, which becomes `make` of those that were given."""
    own = [each for each in inspect.signature(command).parameters.values() if each.name != name]

    def run(**arguments: Any) -> None:
        values = {flag.name: arguments.pop(flag.name) for flag in flags}
        command(**arguments, **{name: make({key: value for key, value in values.items() if value not in (None, [])})})

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {each.name: each.annotation for each in [*own, *flags]}
    return run


def flag_parameter(name: str, annotation: Any) -> inspect.Parameter:
    """A flag as a parameter of a command; None stands for "not given"."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def repeat_flags(arguments: Sequence[str], flags: Sequence[str], *, takes_model: bool = True) -> list[str]:
    """`--name a b` as `--name a --name b`, for each of `flags`: vLLM's users write it so.

    `arguments` are those after the command's name. If the command takes a model, raises `HeadraceError` where the last
    value may as well be the model.
    """
    repeated: list[str] = []
    flag, values = "", list[str]()
    for place, argument in enumerate(arguments):
        if argument.startswith("-"):
            flag, values = argument if argument in flags else "", []
        elif flag:
            values.append(argument)
            if len(values) > 1:
                if takes_model and not _model_is_named(arguments):
                    _check_is_no_model(flag, values, at_the_end=place == len(arguments) - 1)
                repeated.append(flag)
        repeated.append(argument)
    return repeated


def _model_is_named(arguments: Sequence[str]) -> bool:
    return not arguments[0].startswith("-") or any(each.split("=")[0] == "--model" for each in arguments)


def _check_is_no_model(flag: str, values: Sequence[str], *, at_the_end: bool) -> None:
    """The model comes last, or is told by its looks: a key or a name must never be made of it unseen."""
    value = values[-1]
    if not at_the_end and not _looks_like_a_model(value):
        return
    raise HeadraceError(
        f"{value!r} may be the model, or one more value of {flag}",
        rule=f"{flag} takes all values that follow it, up to the next flag",
        fix=f"For one more value, repeat the flag: {' '.join(f'{flag} {each}' for each in values)}; "
        "for the model, name it first (headrace serve MODEL ...) or with --model",
        param="model",
    )


def _looks_like_a_model(value: str) -> bool:
    return "://" not in value and ("/" in value or value == EMBEDDED_MODEL or Path(value).exists())
