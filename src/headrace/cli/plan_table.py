"""A plan for a person: what fills the memory as a bar and a table, what it holds, what to type, what would change."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from headrace.cli.columns import aligned
from headrace.cli.paper import Paper
from headrace.cli.plan_bar import origin_of, print_bar, print_capacity, print_items
from headrace.planner.memory import GIB
from headrace.planner.plan import Plan
from headrace.planner.prices import Offer, stale_warning
from headrace.planner.report import Report, speeds
from headrace.planner.roofline import basis, prefill_seconds

_MAX_OTHERS = 8
_MAX_OFFERS = 6


def print_report(report: Report, refusal: str | None, *, explain: bool) -> None:
    """Print the whole answer. `refusal` is what the engine says to the flags, if it does not take them."""
    paper, plan = Paper(), report.plan
    _head(paper, report)
    print_bar(paper, plan)
    print_items(paper, plan, explain=explain)
    _estimates(paper, plan)
    print_capacity(paper, plan, explain=explain)
    _speed(paper, plan)
    if report.others:
        _print_others(paper, report.others[:_MAX_OTHERS])
    if report.offers:
        _print_offers(paper, report.offers[:_MAX_OFFERS])
    if report.flags:
        paper.line(f"\n  headrace serve {shlex.quote(report.question.facts.name)} {' '.join(report.flags)}")
    if refusal is not None:
        paper.sentence(f"This version's engine does not take that yet: {refusal}")
    for sentence in report.advice:
        paper.sentence(f"- {sentence}")


def _head(paper: Paper, report: Report) -> None:
    facts, plan = report.question.facts, report.plan
    outline = facts.outline
    size = f"{outline.parameters / 1e9:.2f} B parameters"
    if outline.active_parameters < 0.8 * outline.parameters:
        size += f" ({outline.active_parameters / 1e9:.2f} B used by a token)"
    paper.sentence(f"{facts.name}: {size}, {outline.num_layers} layers, context {outline.longest_context:,}", indent="")
    paper.sentence(f"from {origin_of(facts)}")
    for note in facts.notes:
        paper.sentence(f"note: {note}")
    count = plan.serving.tensor_parallel_size
    verdict, each = "fits" if plan.fits else "does not fit", " each" if count > 1 else ""
    paper.line(
        f"\n{verdict} {count} x {plan.gpu.name}: {plan.allowed_bytes / GIB:.1f} GiB{each} "
        f"({plan.serving.gpu_memory_utilization:.0%} of {plan.gpu.usable_gib:.1f})"
        + (", but does less than was asked" if plan.fits and not report.enough else "")
    )


def _estimates(paper: Paper, plan: Plan) -> None:
    """Which items no GPU has been asked about."""
    labels = [line.label for line in plan.lines if line.is_estimate]
    if labels:
        paper.sentence(f"estimates, not measured: {', '.join(labels)} (--explain says what they are based on)")


def _speed(paper: Paper, plan: Plan) -> None:
    found = speeds(plan)
    for speed in found:
        each = "one sequence" if speed.batch == 1 else f"{speed.batch} sequences"
        rate, latency = f"{speed.tokens_per_second:,.0f} tokens/s", f"{speed.step_seconds * 1000:.1f} ms a token"
        paper.sentence(f"Estimated for {each} of {plan.context // 2:,} tokens: {rate}, {latency} ({basis(plan)})")
    if found and plan.context > 1:
        length = plan.context // 2
        wait = prefill_seconds(plan, length)
        paper.sentence(f"Estimated for a prompt of {length:,} tokens: the first token after {wait:.2f} s")


def _print_others(paper: Paper, plans: Sequence[Plan]) -> None:
    rows = [
        (
            f"  {plan.serving.tensor_parallel_size} x {plan.gpu.name}",
            f"{plan.gpu.usable_gib:.1f}",
            str(plan.guaranteed(plan.context)),
            f"{plan.longest_context:,}",
        )
        for plan in plans
    ]
    paper.line()
    for line in aligned(("GPUs that do it", "GiB each", "sequences", "longest context"), rows, right=(1, 2, 3)):
        paper.line(line)


def _print_offers(paper: Paper, found: Sequence[Offer]) -> None:
    """The dates are below the table, which otherwise would not fit 80 columns."""
    rows = [
        (
            f"  {offer.price.provider} {offer.price.instance}",
            f"{offer.price.gpus} x {offer.price.gpu}",
            offer.price.region,
            f"{offer.price.usd_per_hour:.2f}",
            f"{offer.usd_per_million_tokens:.2f}",
        )
        for offer in found
    ]
    paper.line()
    for line in aligned(("Cheapest an hour", "GPUs", "region", "$/hour", "$/M tokens"), rows, right=(3, 4)):
        paper.line(line)
    dates: dict[str, dict[str, None]] = {}
    for offer in found:
        dates.setdefault(offer.price.as_of, {})[offer.price.provider] = None
    paper.sentence("prices of " + ", ".join(f"{date} ({', '.join(who)})" for date, who in sorted(dates.items())))
    if (warning := stale_warning((offer.price for offer in found), datetime.now(UTC).date())) is not None:
        paper.sentence(f"warning: {warning}")
