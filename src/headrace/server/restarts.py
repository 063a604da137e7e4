"""How often a dead engine is started again: so many times in a while, and after a longer pause each time.

Whatever kills the engine may come back with it (a request that is sent again, a machine without memory): without a
limit the server would look alive and serve nobody.
"""

from collections import deque

WINDOW_SECONDS = 300.0
MAX_PAUSE_SECONDS = 30.0


class RestartBudget:
    """`limit` restarts within any `WINDOW_SECONDS`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: deque[float] = deque()

    def take(self, now: float) -> float | None:
        """Take one restart; the seconds to wait before it, or None if there are none left."""
        while self._taken and now - self._taken[0] >= WINDOW_SECONDS:
            self._taken.popleft()
        if len(self._taken) >= self._limit:
            return None
        self._taken.append(now)
        again = len(self._taken) - 1
        return min(MAX_PAUSE_SECONDS, 2.0 ** (again - 1)) if again else 0.0
