"""How many values a body may hold. A list of two bytes takes a hundred times that once it is parsed, and time."""

import re

from headrace.core.errors import HeadraceError

MAX_PARTS = 200_000
"""Lists, objects and members of objects, together."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


def check_structure(raw: bytes) -> None:
    """Raise `HeadraceError` if the JSON in `raw` has more than `MAX_PARTS` parts. A long text is none."""
    if len(raw) <= MAX_PARTS or _num_parts(raw) <= MAX_PARTS:
        return
    num_parts = _num_parts(_STRING.sub(b"", raw))
    if num_parts > MAX_PARTS:
        raise HeadraceError(
            f"The request body has {num_parts} lists, objects and members",
            rule=f"It may have {MAX_PARTS}",
            fix="Send several requests",
        )


def _num_parts(raw: bytes) -> int:
    return raw.count(b"[") + raw.count(b"{") + raw.count(b":")
