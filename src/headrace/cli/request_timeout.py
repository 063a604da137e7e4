"""How long a request to a server may take: one flag, alike in every command that sends many."""

import math

from headrace.cli.option_fields import Flag
from headrace.core.errors import HeadraceError

REQUEST_TIMEOUT_SECONDS = 21_600.0
"""Six hours: a batch may well keep a small machine busy so long, but what takes longer has been forgotten."""

_NAME = "--request-timeout"


def request_timeout_flag(panel: str) -> Flag:
    """The flag, for a field in seconds where 0 is any time."""
    return Flag("Seconds from a request's sending to the end of its answer; 0: any time.", panel, spelling=_NAME)


def check_request_timeout(seconds: float) -> None:
    """Raise `HeadraceError` for what is no time to wait."""
    if not 0 <= seconds < math.inf:
        raise HeadraceError(
            f"{_NAME} is {seconds:g}",
            rule="It is a number of seconds, at least 0",
            fix="Use 0 to wait as long as it takes",
            param="request_timeout",
        )
