"""How many values a body may hold. A list of two bytes takes a hundred times that once it is parsed, and time."""

import re

from headrace.core.errors import HeadraceError

MAX_PARTS = 200_000
"""Lists, objects and members of objects, together."""
MAX_VALUES = 1_000_000
"""Elements of lists and members of objects, together."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


def check_structure(raw: bytes) -> None:
    """Raise `HeadraceError` if the JSON in `raw` has more parts or values than it may. A text is one value."""
    if len(raw) <= MAX_PARTS or (_num_parts(raw) <= MAX_PARTS and raw.count(b",") < MAX_VALUES):
        return
    bare = _STRING.sub(b"", raw)
    num_parts, num_values = _num_parts(bare), bare.count(b",") + 1
    if num_parts > MAX_PARTS:
        raise HeadraceError(
            f"The request body has {num_parts} lists, objects and members",
            rule=f"It may have {MAX_PARTS}",
            fix="Send several requests",
        )
    if num_values > MAX_VALUES:
        what, rule = f"The request body has {num_values} values", f"It may have {MAX_VALUES}"
        raise HeadraceError(what, rule=rule, fix="Send several requests")


def _num_parts(raw: bytes) -> int:
    return raw.count(b"[") + raw.count(b"{") + raw.count(b":")
