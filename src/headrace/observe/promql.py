"""The few PromQL expressions that dashboards and alerts are made of, and which metrics an expression reads."""

import re

BY = "instance, model_name"
"""A server each: what is summed up is its series by other labels."""

_NAME = re.compile(r"((?:vllm|headrace):\w+)(\{)?")


def per_second(counter: str, by: str = BY, window: str = "5m") -> str:
    """How fast a counter moves."""
    return f"sum by ({by}) (rate({counter}[{window}]))"


def ratio(part: str, whole: str, window: str = "5m") -> str:
    """One counter's share of another; no value where nothing happens."""
    return f"{per_second(part, window=window)} / {per_second(whole, window=window)}"


def mean(histogram: str, window: str = "5m") -> str:
    """The mean of what was observed lately."""
    return ratio(f"{histogram}_sum", f"{histogram}_count", window)


def quantile(share: float, histogram: str, window: str = "5m") -> str:
    """The value that `share` of what was observed lately did not exceed."""
    return f"histogram_quantile({share:g}, {per_second(f'{histogram}_bucket', f'{BY}, le', window)})"


def names_in(expression: str) -> set[str]:
    """The samples that an expression reads."""
    return {found[1] for found in _NAME.finditer(expression)}


def where(matcher: str, expression: str) -> str:
    """The expression for those series alone that `matcher` (`label=~"..."`) selects."""
    return _NAME.sub(lambda found: f"{found[1]}{{{matcher}{',' if found[2] else '}'}", expression)
