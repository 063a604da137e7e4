"""Errors that speak of Python's arguments, told in the words of a command line."""

import re
from dataclasses import fields

from headrace.core.config import EngineConfig, names_not_served
from headrace.core.errors import HeadraceError

_OF_PLAN = ("concurrency", "max_itl_ms", "max_ttft_ms", "max_loras", "max_lora_rank", "host_memory", "draft_model")
"""Arguments of the planner that are flags of `headrace plan`."""


def as_flags(error: HeadraceError) -> HeadraceError:
    """`error` with flags for the engine's arguments: --max-model-len is 0, --device auto, --enable-lora."""
    what, rule, fix = (_as_flags(text) for text in (error.what, error.rule, error.fix))
    return HeadraceError(what, rule=rule, fix=fix, param=error.param, kind=error.kind)


def _as_flags(text: str) -> str:
    known = {*(each.name for each in fields(EngineConfig)), *names_not_served(), *_OF_PLAN}
    names = "|".join(sorted(known, key=len, reverse=True))
    longer = "|".join(sorted((name for name in known if "_" in name), key=len, reverse=True))
    text = re.sub(rf"(?<![\w-])({names})=('[^']*'|\"[^\"]*\"|[\w.-]*\w|\.\.\.)", _flag_with_value, text)
    text = re.sub(rf"^(?!model\b)({names})(?= (?:is|and)\b)", lambda match: _flag(match[1]), text)
    return re.sub(rf"(?<![\w./'-])({longer})(?![\w./'=])", lambda match: _flag(match[1]), text)


def _flag_with_value(match: re.Match[str]) -> str:
    name, value = match[1], match[2].strip("'\"")
    if value in ("True", "False"):
        return _flag(name) if value == "True" else "--no-" + _flag(name).removeprefix("--")
    return f"{_flag(name)} {value}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
