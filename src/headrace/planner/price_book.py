"""The prices that are known: those of the package, and newer ones that `prices refresh` keeps in the user's cache."""

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.paths import cache_dir
from headrace.planner.prices import Price


def known_prices() -> tuple[Price, ...]:
    """Of each instance the newer of the shipped and the kept price. Raises `HeadraceError` for a damaged file."""
    by_age = sorted((*shipped_prices(), *kept_prices()), key=lambda price: price.as_of)
    return tuple({(price.provider, price.instance): price for price in by_age}.values())


@cache
def shipped_prices() -> tuple[Price, ...]:
    """The snapshot in the package."""
    return _parse((files("headrace.planner") / "data" / "prices.json").read_text())


def kept_path() -> Path:
    """Where the user's own snapshot is."""
    return cache_dir() / "prices.json"


def kept_prices() -> tuple[Price, ...]:
    """The user's own snapshot; none if there is none. Raises `HeadraceError` if it is damaged."""
    path = kept_path()
    try:
        return _parse(path.read_text())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise HeadraceError(
            f"The prices in {path} cannot be read: {error}",
            rule="It is what `headrace plan prices refresh` wrote",
            fix="Delete it, and the shipped prices hold again",
        ) from error


def keep(prices: Iterable[Price]) -> Path:
    """Put these in place of what was kept, by one rename: who reads meanwhile finds the old or the new, whole.

    Raises `HeadraceError` if the cache cannot be written.
    """
    path = kept_path()
    text = json.dumps([asdict(price) for price in prices], indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(new).replace(path)
    except OSError as error:
        raise HeadraceError(
            f"The prices cannot be written to {path}: {error.strerror}",
            fix="Set HEADRACE_CACHE to a folder that can be written",
            kind=ErrorKind.INTERNAL,
        ) from error
    return path


def _parse(text: str) -> tuple[Price, ...]:
    return tuple(Price(**entry) for entry in json.loads(text))
