"""The shipped prices and the user's newer ones: which holds, and that the file is whole at every moment."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from headrace.core.errors import HeadraceError
from headrace.planner.price_book import keep, kept_path, kept_prices, known_prices, shipped_prices
from headrace.planner.price_drift import drift
from headrace.planner.price_feeds.quote import Quote
from headrace.planner.prices import Price


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache."""
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def price_of(instance: str) -> Price:
    """What is known of an instance."""
    (found,) = (price for price in known_prices() if price.instance == instance)
    return found


def test_the_newer_price_holds() -> None:
    shipped = price_of("g6.xlarge")
    assert known_prices() and set(known_prices()) == set(shipped_prices())
    keep([replace(shipped, usd_per_hour=0.9, as_of="2030-01-01")])
    assert price_of("g6.xlarge").usd_per_hour == 0.9
    keep([replace(shipped, usd_per_hour=0.9, as_of="2020-01-01")])
    assert price_of("g6.xlarge") == shipped
    assert len(known_prices()) == len(shipped_prices())


def test_a_snapshot_that_cannot_be_written_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    old = (price_of("g6.xlarge"),)
    keep(old)

    def no_space(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(HeadraceError, match="No space left"):
        keep([price_of("g5.xlarge")])
    assert kept_prices() == old


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"provider": "AWS"}]', "{}x"])
def test_a_damaged_snapshot_is_named(text: str, cache: Path) -> None:
    cache.mkdir()
    kept_path().write_text(text)
    with pytest.raises(HeadraceError, match="Delete it") as caught:
        known_prices()
    assert str(kept_path()) in caught.value.what


def quoted(price: Price, factor: float) -> Quote:
    """A provider's word that the price is `factor` times what was known."""
    return Quote(price.provider, price.instance, price.region, price.usd_per_hour * factor, "test")


def test_what_moved_far_is_told_from_what_did_not() -> None:
    today = date(2026, 12, 1)
    near, far, cheap, gone = shipped_prices()[:4]
    found = drift((near, far, cheap, gone), [quoted(near, 1.2), quoted(far, 1.21), quoted(cheap, 0.5)], today, 0.2001)
    assert [change.old for change in found.small] == [near]
    assert [change.old for change in found.large] == [far, cheap]
    assert found.missing == (gone,)
    assert found.small[0].new == replace(near, usd_per_hour=near.usd_per_hour * 1.2, as_of="2026-12-01", source="test")


def test_a_price_of_another_region_is_none_of_ours() -> None:
    price = shipped_prices()[0]
    found = drift([price], [replace(quoted(price, 1), region="mars-1")], date(2026, 12, 1), 0.2)
    assert found.missing == (price,) and not found.small


@pytest.mark.parametrize("share", [-0.1, float("nan"), float("inf")])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(HeadraceError, match="max-change"):
        drift([], [], date(2026, 12, 1), share)
