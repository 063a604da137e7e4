"""The page about metrics is the catalogue."""

from pathlib import Path

from headrace.observe.docs import markdown

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_the_catalogue() -> None:
    fix = "run python -m headrace.observe.docs > docs/metrics.md"
    assert PAGE.read_text() == markdown() + "\n", fix
