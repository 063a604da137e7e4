"""Says in the log when an engine makes no progress any more, and when it goes on: once each."""

import logging

_log = logging.getLogger(__name__)


class LatenessLog:
    """What is logged of one engine."""

    def __init__(self) -> None:
        self._late = False

    def look(self, seconds_late: float) -> None:
        """To be called now and then; 0.0 is an engine in order."""
        if seconds_late and not self._late:
            _log.warning(
                "The engine has made no progress for %.0f s. /health answers 503 until it goes on.", seconds_late
            )
        elif self._late and not seconds_late:
            _log.warning("The engine goes on: /health answers 200 again.")
        self._late = seconds_late > 0.0
