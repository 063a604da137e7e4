"""Runs the commands in docs/plan.md and puts what they print below them: `python scripts/plan_page.py`.

An example is an indented block whose first line is `$ headrace plan ...`. The warning about old prices is left out,
since it depends on the day. `--check` changes nothing, and fails if the page is not what it would be.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "plan.md"
_EXAMPLE = re.compile(r"^    \$ (headrace plan [^\n]*)\n(?:    [^\n]*\n|\n(?=    ))*", re.MULTILINE)


def rendered(page: str) -> str:
    """The page with every example as it is now."""
    return _EXAMPLE.sub(lambda example: _block(example[1]), page)


def _block(command: str) -> str:
    lines = [f"$ {command}", *_output(shlex.split(command))]
    return "".join(f"    {line}".rstrip() + "\n" for line in lines)


def _output(arguments: list[str]) -> list[str]:
    """What a command prints to a pipe on a machine without a cache."""
    from headrace.cli import main

    with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stdout(io.StringIO()) as printed:
        os.environ["HEADRACE_CACHE"], sys.argv = cache, arguments
        if main() != 0:
            raise SystemExit(f"{shlex.join(arguments)} failed")
    return [line for line in printed.getvalue().splitlines() if "warning: The price of" not in line]


def main() -> int:
    """Write the page, or with --check compare it; the exit status."""
    check = "--check" in sys.argv
    page = PAGE.read_text()
    new = rendered(page)
    if check and new != page:
        print("docs/plan.md is not what the commands print: run python scripts/plan_page.py", file=sys.stderr)
        return 1
    if not check:
        PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
