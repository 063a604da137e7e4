"""Prices: each with its date and source, cheapest first, and a warning when they are old."""

from datetime import date, timedelta

import pytest

from headrace.planner.catalogue import find_known
from headrace.planner.choose import Demand, choices
from headrace.planner.facts import facts_of_known
from headrace.planner.gpus import find_gpu
from headrace.planner.price_book import shipped_prices
from headrace.planner.prices import MAX_AGE_DAYS, Price, offers, stale_warning
from headrace.planner.report import Question, as_dict, report_on
from headrace.planner.serving import Serving


def question(name: str, **serving: object) -> Question:
    """What is asked about a model of the catalogue."""
    known = find_known(name)
    assert known is not None
    return Question(facts_of_known(known, name), Serving(**serving))  # type: ignore[arg-type]


@pytest.mark.parametrize("price", shipped_prices(), ids=lambda price: f"{price.provider} {price.instance}")
def test_every_price_says_where_when_and_who(price: Price) -> None:
    assert find_gpu(price.gpu).name == price.gpu
    assert date.fromisoformat(price.as_of).year >= 2026
    assert price.source and price.region and price.currency == "USD"
    assert 0.1 < price.usd_per_hour / price.gpus < 20


def test_the_providers() -> None:
    assert {price.provider for price in shipped_prices()} == {"AWS", "Azure", "GCP", "Modal", "Replicate"}


def test_the_cheapest_first_and_only_what_holds_it() -> None:
    found = report_on(question("Qwen/Qwen3-8B", max_model_len=8192)).offers
    prices = [offer.price.usd_per_hour for offer in found]
    assert prices == sorted(prices) and prices
    for offer in found:
        assert offer.plan.fits and offer.price.gpus >= offer.plan.serving.tensor_parallel_size
        hourly = offer.tokens_per_second * 3600 / 1e6 * offer.usd_per_million_tokens
        assert hourly == pytest.approx(offer.price.usd_per_hour)


def test_a_larger_instance_runs_replicas() -> None:
    asked = question("Qwen/Qwen3-8B", max_model_len=8192)
    one, eight = (Price("x", f"{n}", "L40S", n, 1.0 * n, "USD", "r", "2026-11-01", "s") for n in (1, 8))
    plans = tuple(plan for plan in choices(asked.facts, asked.serving, Demand()) if plan.gpu.name == "L40S")
    small, large = offers(plans, (one, eight))
    assert large.replicas == 8 * small.replicas
    assert large.usd_per_million_tokens == pytest.approx(small.usd_per_million_tokens)


def test_old_prices_are_warned_of() -> None:
    found = shipped_prices()
    oldest = min(date.fromisoformat(price.as_of) for price in found)
    assert stale_warning(found, oldest + timedelta(days=MAX_AGE_DAYS)) is None
    warning = stale_warning(found, oldest + timedelta(days=MAX_AGE_DAYS + 1))
    assert warning is not None and oldest.isoformat() in warning
    assert stale_warning([], oldest) is None


def test_machines_get_the_source_too() -> None:
    first = as_dict(report_on(question("Qwen/Qwen3-0.6B")))["offers"][0]  # type: ignore[index]
    assert first["source"] and first["as_of"] and first["usd_per_million_tokens"] > 0
