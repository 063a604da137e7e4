"""Errors that speak of flags, told in the words of Python: max_model_len=8192 for --max-model-len 8192."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError

_VALUES = r"\d[\d.]*(?<!\.)|auto|none|int8|int4|fp8|float32|float16|bfloat16|cpu|cuda"


@contextmanager
def told_in_python() -> Iterator[None]:
    """Whatever `HeadraceError` the block raises names keyword arguments instead of flags."""
    try:
        yield
    except HeadraceError as error:
        raise as_arguments(error) from error.__cause__


def as_arguments(error: HeadraceError) -> HeadraceError:
    """`error` with the engine's arguments for its flags: max_model_len=8192, enforce_eager=True, max_num_seqs."""
    what, rule, fix = (_as_arguments(text) for text in (error.what, error.rule, error.fix))
    return type(error)(what, rule=rule, fix=fix, param=error.param, kind=error.kind)


def _as_arguments(text: str) -> str:
    """A flag that stands beside its own argument is left, for those who read both."""
    known = {f"--{each.name.replace('_', '-')}": each for each in fields(EngineConfig) if f"{each.name}=" not in text}

    def argument(match: re.Match[str]) -> str:
        name, value = known[match[1]].name, match[2]
        if value is None:
            return f"{name}=True" if isinstance(known[match[1]].default, bool) else name
        return f"{name}={value}" if value[0].isdigit() else f"{name}={value!r}"

    flags = "|".join(sorted(known, key=len, reverse=True))
    text = re.sub(rf"({flags})(?![\w-])(?: ({_VALUES})\b)?", argument, text)
    return re.sub(r"(\w=[\w.']+) (?=[a-z_]+=)", r"\1, ", text)
