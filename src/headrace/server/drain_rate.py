"""How fast the queue drains, in tokens of work a second, measured only while it is the queue that holds requests up.

While little waits, what leaves is what came, which says nothing of what the engine could do.
"""

import math

MEMORY_SECONDS = 10.0
"""What was measured fades over so much time of backlog; time without one does not count."""

SETTLED_SECONDS = 0.5
"""Of backlog, until which the assumed rate fills in for what has not been measured yet."""


class DrainRate:
    """`assumed` tokens a second stand for the rate until there is a measurement."""

    def __init__(self, assumed: float) -> None:
        self._assumed = assumed
        self._tokens = 0.0
        self._seconds = 0.0

    def elapse(self, seconds: float) -> None:
        """Count time of backlog."""
        kept = math.exp(-seconds / MEMORY_SECONDS)
        self._tokens *= kept
        self._seconds = self._seconds * kept + MEMORY_SECONDS * (1.0 - kept)

    def left(self, tokens: float) -> None:
        """Count work that has left the queue for the engine."""
        self._tokens += tokens

    def per_second(self, head_tokens: float) -> float:
        """The rate. The head of the queue, `head_tokens`, is nearly through: a long prompt is no standstill."""
        unknown = max(0.0, SETTLED_SECONDS - self._seconds)
        known = self._tokens + (head_tokens if self._seconds else 0.0)
        return (known + unknown * self._assumed) / (self._seconds + unknown)
