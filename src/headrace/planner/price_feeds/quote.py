"""What a provider's own price list says of one instance, and how its untrusted numbers are read."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quote:
    """US dollars an hour on demand, without discounts; `source` says which list, and of when."""

    provider: str
    instance: str
    region: str
    usd_per_hour: float
    source: str


def positive(value: object) -> float | None:
    """A positive finite number, also one in text. None for anything else, as the 0 of what is paid elsewhere."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
