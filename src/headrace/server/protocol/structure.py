"""How many values a body may hold. A list of two bytes takes a hundred times that once it is parsed, and time.

It is the event loop's time, on which every stream waits: a thread would not help, since the parser holds the GIL.
"""

from headrace.core.errors import HeadraceError

MAX_PARTS = 50_000
"""Lists, objects, members of objects and strings, together."""
MAX_VALUES = 1_000_000
"""Elements of lists and members of objects, together."""


def check_structure(raw: bytes) -> None:
    """Raise `HeadraceError` if the JSON in `raw` has more parts or values than it may. A text is one of either."""
    if len(raw) <= MAX_PARTS:
        return
    quotes = raw.replace(b"\\\\", b"").replace(b'\\"', b"")  # now each of them begins or ends a string
    num_strings = quotes.count(b'"') // 2
    _check(num_strings, MAX_PARTS, "strings")
    bare = b"".join(quotes.split(b'"')[::2])
    num_parts = num_strings + bare.count(b"[") + bare.count(b"{") + bare.count(b":")
    _check(num_parts, MAX_PARTS, "lists, objects, members and strings")
    _check(bare.count(b",") + 1, MAX_VALUES, "values")


def _check(count: int, limit: int, of_what: str) -> None:
    if count > limit:
        what, rule = f"The request body has {count} {of_what}", f"It may have {limit}"
        raise HeadraceError(what, rule=rule, fix="Send several requests")
