"""Where numbers gather between two scrapes: plain attributes, no locks, because one thread writes and reads them."""

from bisect import bisect_left
from collections.abc import Sequence


class Number:
    """A counter or a gauge: whoever owns it adds to or sets `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """Counts by bucket and the sum of all values. `bounds` are inclusive upper ends, ascending; one more is +Inf."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum: float = 0

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count many values, at a third of the cost of each alone."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sum += sum(values)


class RestartedCounter:
    """Follows a count that begins again at zero when its source restarts; its own `total` never falls."""

    __slots__ = ("_seen", "_total")

    def __init__(self, total: Number) -> None:
        self._total = total
        self._seen: float = 0

    def follow(self, count: float) -> None:
        """The source now says `count`. Less than before means that it restarted."""
        self._total.value += count - self._seen if count >= self._seen else count
        self._seen = count

    def restart(self) -> None:
        """The source begins again at zero, and may have counted beyond what it had when its next word comes."""
        self._seen = 0
