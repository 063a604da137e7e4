"""Whether the engine moves while it has work: read from its heartbeat, without asking it.

A step may take long because it is large, or because the machine is slow: neither is a hang. So the time that a step
gets grows with its tokens, and with how slow the steps were that were seen to end. How much it grows is bounded: a
step that stood still and went on looks like a slow one, and must not hide the next that stands still.
"""

from headrace.wire.heartbeat import Beat, Heartbeat

BASE_SECONDS = 5.0
"""What every step gets at least."""
SECONDS_PER_TOKEN = 0.05
SLOWEST_SECONDS_PER_TOKEN = 10 * SECONDS_PER_TOKEN
SLOWNESS_FACTOR = 4.0
SMALL_STEP_TOKENS = 64
"""A smaller step takes about as long: all weights are read for it. So it tells, and gets, as much time as this one."""

MAX_SECONDS = 600.0
FORGETTING = 0.9
"""What is left of a slow step, each time that a step is seen to end: a machine may have been slow for a while only."""


class Progress:
    """Judges one engine by its `heartbeat`. Times are `time.monotonic`."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._work_since = 0.0
        self._seen: Beat | None = None
        self._seen_seconds = 0.0
        self._slow_seconds_per_token = 0.0

    def work_began(self, now: float) -> None:
        """There was nothing to do, and now there is."""
        self._work_since = now

    def look(self, now: float) -> None:
        """Learn how slow the engine is. To be called now and then while it has work, about as often at any load."""
        beat, seen = self._heartbeat.read(), self._seen
        if seen is not None and seen.step_tokens and beat.at != seen.at:
            self._learn(self._seen_seconds, seen.step_tokens)
        self._seen, self._seen_seconds = beat, self._still(beat, now)

    def seconds_late(self, now: float, *, has_work: bool, beyond: float = 0.0) -> float:
        """For how long the engine has not moved, if that is longer than it may, by more than `beyond`; else 0.0.

        A step that began has to end, also if those whom it is for have left: then `has_work` may be false.
        """
        beat = self._heartbeat.read()
        still = self._still(beat, now)
        if still <= BASE_SECONDS or not (has_work or beat.step_tokens):
            return 0.0
        return still if still > self._limit(beat.step_tokens) + beyond else 0.0

    def _still(self, beat: Beat, now: float) -> float:
        """It may have been idle before the work came, but not within a step."""
        return now - (beat.at if beat.step_tokens else max(beat.at, self._work_since))

    def _limit(self, step_tokens: int) -> float:
        slow = self._slow_seconds_per_token * max(step_tokens, SMALL_STEP_TOKENS)
        return min(MAX_SECONDS, BASE_SECONDS + max(SECONDS_PER_TOKEN * step_tokens, slow))

    def _learn(self, seconds: float, step_tokens: int) -> None:
        """A step has ended that took at least as long as it had taken when it was looked at."""
        pace = max(0.0, seconds - BASE_SECONDS) / max(step_tokens, SMALL_STEP_TOKENS)
        slow = min(SLOWEST_SECONDS_PER_TOKEN, SLOWNESS_FACTOR * pace)
        self._slow_seconds_per_token = max(slow, FORGETTING * self._slow_seconds_per_token)
