"""Old prices beside what the providers say now, and which of the changes somebody has to look at first.

A price that moved far is more often a misread list than a bargain, so it is held back until it is accepted.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

from headrace.core.errors import HeadraceError
from headrace.planner.price_feeds.quote import Quote
from headrace.planner.prices import Price


@dataclass(frozen=True, slots=True)
class Change:
    """A price, and what it is today."""

    old: Price
    new: Price

    @property
    def share(self) -> float:
        """By how much it moved: 0.1 is ten percent dearer."""
        return self.new.usd_per_hour / self.old.usd_per_hour - 1


@dataclass(frozen=True, slots=True)
class Drift:
    """`small` changes, `large` ones, and prices that were asked for and are not in the provider's list."""

    small: tuple[Change, ...]
    large: tuple[Change, ...]
    missing: tuple[Price, ...]


def drift(prices: Sequence[Price], quotes: Iterable[Quote], today: date, max_change: float) -> Drift:
    """Set `quotes` against `prices`, all of which were asked for. A change beyond the share `max_change` is large.

    Raises `HeadraceError` if that is no share.
    """
    if not 0 <= max_change < math.inf:
        rule, fix = "It is a share, 0 or more", "Use for example 0.2 for 20 percent"
        raise HeadraceError(f"--max-change is {max_change:g}", rule=rule, fix=fix, param="max_change")
    found = {(quote.provider, quote.instance, quote.region): quote for quote in quotes}
    changes, missing = [], []
    for price in prices:
        quote = found.get((price.provider, price.instance, price.region))
        if quote is None:
            missing.append(price)
        else:
            changes.append(Change(price, _renewed(price, quote, today)))
    large = tuple(change for change in changes if abs(change.share) > max_change)
    return Drift(tuple(change for change in changes if change not in large), large, tuple(missing))


def _renewed(price: Price, quote: Quote, today: date) -> Price:
    return replace(price, usd_per_hour=quote.usd_per_hour, as_of=today.isoformat(), source=quote.source)
