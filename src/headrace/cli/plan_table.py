"""A plan for a person: what fills the memory as a bar and a table, what it holds, what to type, what would change."""

import shlex
import shutil
from datetime import date

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.planner.memory import GIB
from headrace.planner.plan import Plan
from headrace.planner.prices import Offer, stale_warning
from headrace.planner.report import Report, speeds
from headrace.planner.roofline import ERROR_BAND, prefill_seconds

_COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue", "white")
_BAR_WIDTH = 60
_MAX_OTHERS = 8
_MAX_OFFERS = 6
_MIN_WIDTH = 110


def print_report(report: Report, refusal: str | None, *, explain: bool) -> None:
    """Print the whole answer. `refusal` is what the engine says to the flags, if it does not take them."""
    console, plan = Console(highlight=False, soft_wrap=True, width=_width()), report.plan
    _head(console, report)
    console.print(_bar(plan))
    _print_lines(console, plan, explain=explain)
    _holds(console, plan, explain=explain)
    _speed(console, plan)
    if report.others:
        console.print(_others(report))
    if report.offers:
        _print_offers(console, list(report.offers), date.today())
    if report.flags:
        console.print(f"\n  headrace serve {shlex.quote(report.question.facts.name)} {' '.join(report.flags)}")
    if refusal is not None:
        console.print(f"  This version's engine does not take that yet: {refusal}")
    for sentence in report.advice:
        console.print(f"  - {sentence}")


def _width() -> int:
    """Of the terminal, but never so narrow that the tables are cut."""
    return max(_MIN_WIDTH, shutil.get_terminal_size().columns)


def _head(console: Console, report: Report) -> None:
    facts, plan = report.question.facts, report.plan
    outline = facts.outline
    size = f"{outline.parameters / 1e9:.2f} B parameters"
    if outline.active_parameters < 0.8 * outline.parameters:
        size += f" ({outline.active_parameters / 1e9:.2f} B used by a token)"
    console.print(f"{facts.name}: {size}, {outline.num_layers} layers, context {outline.longest_context:,}")
    console.print(f"  from the {facts.origin}" if facts.origin.startswith("built") else f"  from {facts.origin}")
    for note in facts.notes:
        console.print(f"  note: {note}")
    count = plan.serving.tensor_parallel_size
    verdict = "fits" if plan.fits else "does not fit"
    each = " each" if count > 1 else ""
    console.print(
        f"\n{verdict} {count} x {plan.gpu.name}: {plan.allowed_bytes / GIB:.1f} GiB{each} "
        f"({plan.serving.gpu_memory_utilization:.0%} of {plan.gpu.usable_gib:.1f})"
    )


def _parts(plan: Plan) -> list[tuple[str, int]]:
    return [*((line.label, line.nbytes) for line in plan.lines), ("KV cache", max(0, plan.kv_bytes))]


def _bar(plan: Plan) -> Text:
    """One cell for each sixtieth of the GPU's memory; what is beyond it is not drawn."""
    bar, filled, done = Text("  ["), 0, 0
    for position, (_, nbytes) in enumerate(_parts(plan)):
        done += nbytes
        end = min(_BAR_WIDTH, round(done / plan.gpu.usable_bytes * _BAR_WIDTH))
        symbol = _symbol(position)
        bar.append(symbol * (end - filled), style=_COLOURS[position % len(_COLOURS)])
        filled = max(filled, end)
    return bar.append("." * (_BAR_WIDTH - filled)).append("]")


def _symbol(position: int) -> str:
    return "#=+*%@&o~^"[position % 10]


def _print_lines(console: Console, plan: Plan, *, explain: bool) -> None:
    """One line an item, marked as in the bar; with the formula and the source of each below it if wanted."""
    for position, (label, nbytes) in enumerate(_parts(plan)):
        mark = Text(f"  {_symbol(position)} ", style=_COLOURS[position % len(_COLOURS)])
        console.print(mark.append(f"{label:<22}{nbytes / GIB:8.2f} GiB", style="default"))
        if explain:
            formula, source = _explanation(plan, position)
            console.print(f"      {formula}", *([f"      {source}"] if source else []), sep="\n", markup=False)


def _explanation(plan: Plan, position: int) -> tuple[str, str]:
    if position < len(plan.lines):
        return plan.lines[position].formula, plan.lines[position].source
    return f"what is left of {plan.allowed_bytes / GIB:.2f} GiB; {_kv_formula(plan)}", ""


def _kv_formula(plan: Plan) -> str:
    share = f", on each of {plan.serving.tensor_parallel_size} GPUs" if plan.serving.tensor_parallel_size > 1 else ""
    layers = len(plan.facts.outline.attention_layers)
    each = plan.serving.kv_bytes
    return f"a token keeps {plan.kv_bytes_per_token:,} bytes: {layers} layers, {each} bytes an element{share}"


def _holds(console: Console, plan: Plan, *, explain: bool) -> None:
    if not plan.cache_tokens:
        return
    length = plan.context
    ideal, reserved = plan.ideal_bytes(length) / GIB, plan.reserved_bytes(length) / GIB
    console.print(f"\n  KV cache: {plan.cache_tokens:,} tokens of {plan.kv_bytes_per_token:,} bytes")
    console.print(f"  Longest context: {plan.longest_context:,} tokens")
    console.print(
        f"  At {length:,} tokens: {plan.guaranteed(length)} at once guaranteed, {plan.expected(length)} expected; "
        f"one takes {reserved:.2f} GiB" + (f" (it must keep {ideal:.2f})" if reserved > 1.02 * ideal else "")
    )
    if explain:
        console.print(
            f"    guaranteed: {plan.num_blocks:,} blocks of {plan.serving.block_size} tokens / "
            f"{plan.blocks_of(length):,} a sequence; expected: half prompt, half answer, the answer half written"
        )


def _speed(console: Console, plan: Plan) -> None:
    found = speeds(plan)
    for speed in found:
        each = "one sequence" if speed.batch == 1 else f"{speed.batch} sequences"
        rate, latency = f"{speed.tokens_per_second:,.0f} tokens/s", f"{speed.step_seconds * 1000:.1f} ms a token"
        console.print(
            f"  Estimated for {each} of {plan.context // 2:,} tokens: {rate}, {latency} "
            f"(fitted on an H100: +-{ERROR_BAND:.0%})"
        )
    if found and plan.context > 1:
        length = plan.context // 2
        wait = prefill_seconds(plan, length)
        console.print(f"  Estimated for a prompt of {length:,} tokens: the first token after {wait:.2f} s")


def _others(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2), title="GPUs that do it", title_justify="left")
    for name in ("", "GPU", "GiB each", "sequences", "longest context"):
        table.add_column(name, justify="left" if name in ("", "GPU") else "right")
    for plan in report.others[:_MAX_OTHERS]:
        table.add_row(
            f"{plan.serving.tensor_parallel_size} x",
            plan.gpu.name,
            f"{plan.gpu.usable_gib:.1f}",
            str(plan.guaranteed(plan.context)),
            f"{plan.longest_context:,}",
        )
    return table


def _print_offers(console: Console, found: list[Offer], today: date) -> None:
    table = Table(box=None, padding=(0, 2), title="Cheapest an hour", title_justify="left")
    for name in ("", "instance", "GPUs", "region", "$/hour", "$/million tokens", "price of"):
        table.add_column(name, justify="right" if "$" in name else "left")
    for offer in found[:_MAX_OFFERS]:
        price, usd = offer.price, offer.usd_per_million_tokens
        table.add_row(
            price.provider,
            price.instance,
            f"{price.gpus} x {price.gpu}",
            price.region,
            f"{price.usd_per_hour:.2f}",
            f"{usd:.2f}",
            price.as_of,
        )
    console.print(table)
    if (warning := stale_warning(found[:_MAX_OFFERS], today)) is not None:
        console.print(f"  warning: {warning}")
