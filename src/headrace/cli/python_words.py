"""Errors that speak of Python's arguments, told in the words of a command line."""

import re
from dataclasses import fields

from headrace.core.config import EngineConfig, names_not_served
from headrace.core.errors import HeadraceError


def as_flags(error: HeadraceError) -> HeadraceError:
    """`error` with flags for the engine's arguments: --max-model-len is 0, --device auto, --enable-lora."""
    what, rule, fix = (_as_flags(text) for text in (error.what, error.rule, error.fix))
    return HeadraceError(what, rule=rule, fix=fix, param=error.param, kind=error.kind)


def _as_flags(text: str) -> str:
    names = "|".join(sorted({each.name for each in fields(EngineConfig)} | names_not_served(), key=len, reverse=True))
    text = re.sub(rf"(?<![\w-])({names})=('[^']*'|\"[^\"]*\"|[\w.-]*\w)", _flag_with_value, text)
    return re.sub(rf"^(?!model\b)({names})(?= (?:is|and)\b)", lambda match: _flag(match[1]), text)


def _flag_with_value(match: re.Match[str]) -> str:
    name, value = match[1], match[2].strip("'\"")
    if value in ("True", "False"):
        return _flag(name) if value == "True" else "--no-" + _flag(name).removeprefix("--")
    return f"{_flag(name)} {value}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
