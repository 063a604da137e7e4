"""Several plans side by side, at one context that all of them hold, so that their numbers mean the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.planner.plan import Plan, plan_on
from headrace.planner.price_book import known_prices
from headrace.planner.prices import Offer, offers
from headrace.planner.report import Question, offer_as_dict, plan_as_dict, report_on


@dataclass(frozen=True, slots=True)
class Compared:
    """One plan of a comparison, and the cheapest instance that holds it."""

    plan: Plan
    cheapest: Offer | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`context` in tokens is the longest that every plan holds which fits at all; 0 if none does."""

    context: int
    columns: tuple[Compared, ...]


def compare(questions: Sequence[Question]) -> Comparison:
    """Answer each, then plan again for the shortest of their contexts. Raises `HeadraceError` as `report_on` does."""
    plans = [report_on(question).plan for question in questions]
    context = min((plan.context for plan in plans if plan.fits), default=0)
    return Comparison(context, tuple(_compared(plan, context) for plan in plans))


def _compared(plan: Plan, context: int) -> Compared:
    if not plan.fits:
        return Compared(plan, None)
    plan = plan_on(plan.facts, replace(plan.serving, max_model_len=context), plan.gpu)
    return Compared(plan, next(iter(offers((plan,), known_prices())), None))


def comparison_as_dict(comparison: Comparison) -> dict[str, object]:
    """The comparison for machines."""
    return {
        "context": comparison.context,
        "plans": [
            {
                "model": column.plan.facts.name,
                "origin": column.plan.facts.origin,
                "parameters": column.plan.facts.outline.parameters,
                "notes": list(column.plan.facts.notes),
                "plan": plan_as_dict(column.plan),
                "cheapest_offer": None if column.cheapest is None else offer_as_dict(column.cheapest),
            }
            for column in comparison.columns
        ],
    }
