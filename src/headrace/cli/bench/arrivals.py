"""When requests are sent: an open loop, whose arrivals do not wait for answers, or all at once."""

import math
import random
from itertools import accumulate

from headrace.core.errors import HeadraceError


def arrival_seconds(source: random.Random, count: int, request_rate: float, burstiness: float) -> list[float]:
    """Seconds from the start for each of `count` requests, `request_rate` a second on average; inf: all at 0.

    The gaps are gamma distributed with the shape `burstiness`: 1 is a Poisson process, less comes in bursts, more is
    more even.
    """
    if math.isnan(request_rate) or request_rate <= 0:
        raise _not_positive("request_rate", request_rate, "Use for example 2.5, or inf to send everything at once")
    if not 0 < burstiness < math.inf:
        raise _not_positive("burstiness", burstiness, "Use 1 for Poisson arrivals")
    if request_rate == math.inf:
        return [0.0] * count
    scale = 1.0 / (request_rate * burstiness)
    return list(accumulate(source.gammavariate(burstiness, scale) for _ in range(count)))


def _not_positive(name: str, value: float, fix: str) -> HeadraceError:
    flag = name.replace("_", "-")
    return HeadraceError(f"--{flag} is {value:g}", rule="It must be above 0", fix=fix, param=name)
