"""Where the cache is."""

from pathlib import Path

import pytest

from headrace.core.paths import cache_dir


def test_the_first_variable_that_is_set_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HEADRACE_CACHE", "~/own")
    assert cache_dir() == Path("/home/someone/own")
    monkeypatch.delenv("HEADRACE_CACHE")
    assert cache_dir() == Path("/xdg/headrace")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_dir() == Path("/home/someone/.cache/headrace")
