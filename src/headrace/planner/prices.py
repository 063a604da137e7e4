"""What a plan costs: prices with their date and source, and the cheapest instances that hold the plan."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from headrace.planner.plan import Plan
from headrace.planner.roofline import decode_speed

MAX_AGE_DAYS = 30
_MILLION = 1_000_000
_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Price:
    """What an instance with `gpus` of a GPU costs an hour, where and when that was so, and who says it."""

    provider: str
    instance: str
    gpu: str
    gpus: int
    usd_per_hour: float
    currency: str
    region: str
    as_of: str
    source: str

    def age_days(self, today: date) -> int:
        """How old it is."""
        return (today - date.fromisoformat(self.as_of)).days


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan on an instance: as many replicas as its GPUs hold, `batch` sequences at once on each."""

    plan: Plan
    price: Price
    replicas: int
    batch: int
    tokens_per_second: float

    @property
    def usd_per_million_tokens(self) -> float:
        """Of answers, with every replica busy."""
        return self.price.usd_per_hour / _SECONDS_AN_HOUR / self.tokens_per_second * _MILLION


def offers(plans: tuple[Plan, ...], prices: tuple[Price, ...]) -> list[Offer]:
    """Every instance that holds one of the plans, cheapest an hour first."""
    found = [
        _offer(plan, price)
        for plan in plans
        for price in prices
        if price.gpu == plan.gpu.name and price.gpus >= plan.serving.tensor_parallel_size
    ]
    return sorted(found, key=lambda offer: offer.price.usd_per_hour)


def stale_warning(prices: Iterable[Price], today: date) -> str | None:
    """A sentence if any of the prices is older than `MAX_AGE_DAYS`."""
    oldest = max(prices, key=lambda price: price.age_days(today), default=None)
    if oldest is None or (age := oldest.age_days(today)) <= MAX_AGE_DAYS:
        return None
    return f"The price of {oldest.provider} {oldest.instance} is of {oldest.as_of}, {age} days ago: check it first"


def _offer(plan: Plan, price: Price) -> Offer:
    replicas = price.gpus // plan.serving.tensor_parallel_size
    batch = max(1, plan.expected(plan.context))
    speed = decode_speed(plan, batch, plan.context // 2)
    return Offer(plan, price, replicas, batch, replicas * speed.tokens_per_second)
