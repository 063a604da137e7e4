"""Whether the engine moves while it has work: read from its heartbeat, without asking it.

A step may take long because it is large, or because the machine is slow: neither is a hang. So the time that a step
gets grows with its tokens, and with how slow the steps were that were seen to end.
"""

from headrace.wire.heartbeat import Beat, Heartbeat

BASE_SECONDS = 5.0
SECONDS_PER_TOKEN = 0.05
SLOWNESS_FACTOR = 4.0
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

    def seconds_late(self, now: float) -> float:
        """For how long the engine has not moved, if that is longer than it may; else 0.0. For when there is work."""
        beat = self._heartbeat.read()
        self._learn(beat)
        still = now - max(beat.at, self._work_since)
        self._seen, self._seen_seconds = beat, still
        return still if still > self._limit(beat.step_tokens) else 0.0

    def _limit(self, step_tokens: int) -> float:
        return BASE_SECONDS + max(SECONDS_PER_TOKEN, SLOWNESS_FACTOR * self._slow_seconds_per_token) * step_tokens

    def _learn(self, beat: Beat) -> None:
        """The step that was looked at last time has ended: it took at least as long as it had taken by then."""
        seen = self._seen
        if seen is not None and seen.step_tokens and beat.at != seen.at:
            pace = max(0.0, self._seen_seconds - BASE_SECONDS) / seen.step_tokens
            self._slow_seconds_per_token = max(pace, FORGETTING * self._slow_seconds_per_token)
