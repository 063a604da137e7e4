"""Latency against load as an SVG: `python benchmarks/plot_online.py headrace=ours.jsonl vLLM=theirs.jsonl --out FILE`.

A file has one JSON object a line and rate, as `gpu_online.py` writes them: `rate`, `out_tok_s`, and `ttft_ms` and
`itl_ms` with p50 and p99. Each panel shows one of these, on a logarithmic scale, over the offered requests a second.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, GAP, MARGIN = 300, 200, 70, 50
_STYLE = "<style>text{font:11px sans-serif;fill:#444}.t{font-weight:bold}</style>"
COLOURS = ("#1664c0", "#d1651b", "#3a8f3a", "#8a4fbf")
Row = Mapping[str, object]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure: what is drawn of a row (None where there is nothing), solid, and dashed if there is a second one."""

    title: str
    solid: Callable[[Row], float | None]
    dashed: Callable[[Row], float | None] | None = None


def _percentile(metric: str, name: str) -> Callable[[Row], float | None]:
    def read(row: Row) -> float | None:
        times = row[metric]
        return times.get(name) if isinstance(times, dict) else None

    return read


PANELS = (
    Panel("Time to first token, ms (p50, dashed p99)", _percentile("ttft_ms", "p50"), _percentile("ttft_ms", "p99")),
    Panel("Between two tokens, ms (p50, dashed p99)", _percentile("itl_ms", "p50"), _percentile("itl_ms", "p99")),
    Panel("Output tokens a second", lambda row: float(str(row["out_tok_s"]))),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places: a range in decades from `low` to `high` over `length` pixels."""

    low: float
    high: float
    length: float

    @classmethod
    def around(cls, values: Sequence[float], length: float) -> "Scale":
        """The decades' halves that hold all values."""
        low, high = math.log10(min(values)), math.log10(max(values))
        return cls(math.floor(low * 2) / 2, max(math.ceil(high * 2), math.floor(low * 2) + 1) / 2, length)

    def place(self, value: float) -> float:
        """Where a positive value lies."""
        return (math.log10(value) - self.low) / (self.high - self.low) * self.length

    def ticks(self) -> list[float]:
        """1, 2 and 5 of each decade in range."""
        found = [step * 10.0**decade for decade in range(-3, 8) for step in (1, 2, 5)]
        return [value for value in found if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9]


def draw(curves: Mapping[str, Sequence[Row]]) -> str:
    """The whole picture: panels side by side, a legend below."""
    width = len(PANELS) * (WIDTH + GAP) + MARGIN
    body = [_STYLE, '<rect width="100%" height="100%" fill="#fff"/>']
    for number, panel in enumerate(PANELS):
        left, top = MARGIN + number * (WIDTH + GAP), MARGIN - 20
        body += [f'<g transform="translate({left},{top})">', *_panel(panel, curves), "</g>"]
    body += _legend(list(curves), MARGIN + HEIGHT + 35)
    size = f'width="{width}" height="{HEIGHT + 2 * MARGIN + 10}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(body)}</svg>\n'


def _panel(panel: Panel, curves: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    lines = {
        (name, dashed): _points(rows, read)
        for name, rows in curves.items()
        for dashed, read in ((False, panel.solid), (True, panel.dashed))
        if read is not None
    }
    points = [point for line in lines.values() for point in line]
    across, up = Scale.around([x for x, _ in points], WIDTH), Scale.around([y for _, y in points], HEIGHT)
    yield f'<text class="t" x="0" y="-10">{escape(panel.title)}</text>'
    yield from _axes(across, up)
    for (name, dashed), line in lines.items():
        colour = COLOURS[list(curves).index(name) % len(COLOURS)]
        yield _line([(across.place(x), HEIGHT - up.place(y)) for x, y in line], colour, dashed)


def _points(rows: Sequence[Row], read: Callable[[Row], float | None]) -> list[Point]:
    found = ((float(str(row["rate"])), read(row)) for row in rows)
    return [(rate, value) for rate, value in found if value is not None and value > 0]


def _axes(across: Scale, up: Scale) -> Iterator[str]:
    for value in across.ticks():
        x = across.place(value)
        yield f'<path d="M{x:.1f} 0V{HEIGHT}" stroke="#eee"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT + 14}" text-anchor="middle">{value:g}</text>'
    for value in up.ticks():
        y = HEIGHT - up.place(value)
        yield f'<path d="M0 {y:.1f}H{WIDTH}" stroke="#eee"/>'
        yield f'<text x="-5" y="{y + 4:.1f}" text-anchor="end">{value:,g}</text>'
    yield f'<path d="M0 0V{HEIGHT}H{WIDTH}" stroke="#888" fill="none"/>'
    yield f'<text x="{WIDTH}" y="{HEIGHT + 28}" text-anchor="end">requests/s offered</text>'


def _line(points: Sequence[Point], colour: str, dashed: bool) -> str:
    if not points:
        return ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points)
    return f'<path d="{path}" stroke="{colour}" stroke-width="2" fill="none"{dash}/>{dots}'


def _legend(names: Sequence[str], top: float) -> list[str]:
    entries = []
    for number, name in enumerate(names):
        left, colour = MARGIN + 140 * number, COLOURS[number % len(COLOURS)]
        entries.append(f'<path d="M{left} {top}h24" stroke="{colour}" stroke-width="3"/>')
        entries.append(f'<text x="{left + 30}" y="{top + 4}">{escape(name)}</text>')
    return entries


def read_rows(path: Path) -> list[Row]:
    """The rates of a file; lines of other kinds are passed over."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [row for row in rows if "rate" in row]


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pairs = [each.split("=", 1) for each in arguments.curves]
    arguments.out.write_text(draw({name: read_rows(Path(file)) for name, file in pairs}))


if __name__ == "__main__":
    main()
