"""Where Headrace keeps what it fetched: one rule, so that every room finds the same files."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder: `HEADRACE_CACHE`, else `XDG_CACHE_HOME`/headrace, else ~/.cache/headrace. May not exist yet."""
    if own := os.environ.get("HEADRACE_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "headrace"
