"""A comparison for a person: a column a plan, a line a number."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from headrace.cli.columns import aligned
from headrace.planner.compare import Compared, Comparison
from headrace.planner.memory import GIB
from headrace.planner.prices import stale_warning
from headrace.planner.report import speeds
from headrace.planner.roofline import basis, prefill_seconds

_NONE = "-"


def print_comparison(comparison: Comparison, refusals: Sequence[str | None]) -> None:
    """Print the table, and below it what the numbers are of and what the engine does not take of each column."""
    columns, context = comparison.columns, comparison.context
    rows = [(label, *(text(column) for column in columns)) for label, text in _rows(context).items()]
    right = range(1, len(columns) + 1)
    print(*aligned(("", *_names(columns)), rows, right=right), sep="\n")
    print()
    if context:
        print(f"Compared at {context:,} tokens (--max-model-len, or the longest that all hold).")
        print(f"Speeds are predicted for {context // 2:,} tokens:", *_bases(columns), sep="\n  ")
    else:
        print("None of these fits; see `headrace plan` for what would make it fit.")
    prices = (column.cheapest.price for column in columns if column.cheapest is not None)
    if (warning := stale_warning(prices, datetime.now(UTC).date())) is not None:
        print(f"warning: {warning}")
    for refused in dict.fromkeys(_refused(columns, refusals)):
        print(f"This version's engine does not take that yet: {refused}")
    for note in dict.fromkeys(
        f"{column.plan.facts.name}: {note}" for column in columns for note in column.plan.facts.notes
    ):
        print(f"note: {note}")


def _bases(columns: Sequence[Compared]) -> list[str]:
    """How far the speeds can be trusted."""
    return list(dict.fromkeys(basis(column.plan) for column in columns if column.plan.fits))


def _refused(columns: Sequence[Compared], refusals: Sequence[str | None]) -> list[str]:
    return [
        f"{column.plan.facts.name}: {refusal}"
        for column, refusal in zip(columns, refusals, strict=True)
        if refusal is not None
    ]


def _names(columns: Sequence[Compared]) -> list[str]:
    """The models without their organisations, unless two are told apart by these only."""
    names = list(dict.fromkeys(column.plan.facts.name for column in columns))
    short = {name: name.rstrip("/").rpartition("/")[2] for name in names}
    unique = len(set(short.values())) == len(names)
    return [short[column.plan.facts.name] if unique else column.plan.facts.name for column in columns]


def _rows(context: int) -> dict[str, Callable[[Compared], str]]:
    """What a line says -> what a plan says there."""
    memory: dict[str, Callable[[Compared], str]] = {
        "GPUs": lambda column: f"{column.plan.serving.tensor_parallel_size} x {column.plan.gpu.name}",
        "weights as": _format,
        "parameters": lambda column: f"{column.plan.facts.outline.parameters / 1e9:.2f} B",
        "fits": lambda column: "yes" if column.plan.fits else "no",
        "allowed GiB, each": lambda column: _gib(column.plan.allowed_bytes),
        "  weights": lambda column: _gib(column.plan.lines[0].nbytes),
        "  everything else": lambda column: _gib(column.plan.fixed_bytes - column.plan.lines[0].nbytes),
        "  KV cache": lambda column: _gib(column.plan.num_blocks * column.plan.block_bytes),
        "KV bytes a token, each": lambda column: f"{column.plan.kv_bytes_per_token:,}",
        "KV cache tokens": lambda column: f"{column.plan.cache_tokens:,}",
        "longest context": lambda column: f"{column.plan.longest_context:,}",
    }
    if not context:
        return memory
    return memory | {
        f"at once at {context:,}": _if_fits(lambda column: str(column.plan.guaranteed(context))),
        "  expected": _if_fits(lambda column: str(column.plan.expected(context))),
        "tokens/s, one sequence": _if_fits(lambda column: f"{speeds(column.plan)[0].tokens_per_second:,.0f}"),
        "tokens/s, as many as expected": _if_fits(lambda column: f"{speeds(column.plan)[-1].tokens_per_second:,.0f}"),
        "first token after, s": _if_fits(lambda column: f"{prefill_seconds(column.plan, max(1, context // 2)):.2f}"),
        "cheapest instance": _if_fits(lambda column: column.cheapest.price.instance if column.cheapest else _NONE),
        "  $/hour": _if_fits(lambda column: f"{column.cheapest.price.usd_per_hour:.2f}" if column.cheapest else _NONE),
        "  $/million tokens": _if_fits(
            lambda column: f"{column.cheapest.usd_per_million_tokens:.2f}" if column.cheapest else _NONE
        ),
    }


def _if_fits(text: Callable[[Compared], str]) -> Callable[[Compared], str]:
    return lambda column: text(column) if column.plan.fits else _NONE


def _format(column: Compared) -> str:
    plan = column.plan
    scheme = plan.serving.scheme or plan.facts.scheme
    return plan.serving.dtype if scheme is None else scheme.name


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f}"
