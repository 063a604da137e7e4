"""Tables in plain text: columns as wide as what is in them, and nothing after a line's last word."""

from collections.abc import Collection, Iterator, Sequence

_GAP = "  "


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> Iterator[str]:
    """The lines of a table; the columns numbered in `right` end in line, the others begin so."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield _GAP.join(cells).rstrip()
