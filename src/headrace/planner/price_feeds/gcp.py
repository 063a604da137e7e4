"""Google's on-demand prices from the Cloud Billing catalogue, which wants an API key
(https://cloud.google.com/billing/docs/reference/rest/v1/services.skus/list).

It has no prices of machines, only of their parts: a machine is the sum of its cores, its memory and its GPUs.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote as escape

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.planner.price_feeds.quote import Quote

ORIGIN: Final = "https://cloudbilling.googleapis.com"
_COMPUTE_ENGINE = "6F81-5844-456A"
_NANOS = 1e-9


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine type is made of. `series` and `gpu` are what the catalogue calls them."""

    series: str
    cores: int
    memory_gib: int
    gpu: str
    gpus: int

    @property
    def parts(self) -> Mapping[str, int]:
        """What the parts are called -> how many of them there are."""
        cores, memory = f"{self.series} instance core", f"{self.series} instance ram"
        return {_plain(cores): self.cores, _plain(memory): self.memory_gib, _plain(self.gpu): self.gpus}


MACHINES: Final = {
    "g2-standard-4": Machine("G2", 4, 16, "L4 GPU", 1),
    "a2-highgpu-1g": Machine("A2", 12, 85, "A100 GPU", 1),
    "a2-highgpu-8g": Machine("A2", 96, 680, "A100 GPU", 8),
    "a2-ultragpu-1g": Machine("A2", 12, 170, "A100 80GB GPU", 1),
    "a2-ultragpu-8g": Machine("A2", 96, 1360, "A100 80GB GPU", 8),
    "a3-highgpu-1g": Machine("A3", 26, 234, "H100 80GB GPU", 1),
    "a3-highgpu-8g": Machine("A3", 208, 1872, "H100 80GB GPU", 8),
    "a3-ultragpu-8g": Machine("A3 Ultra", 224, 2952, "H200 141GB GPU", 8),
}
"""Machine type -> its parts (https://cloud.google.com/compute/docs/gpus), without the SSD that some bring along."""


def page_path(token: str = "") -> str:
    """Where a page of Compute Engine's prices is, from the origin on."""
    return f"/v1/services/{_COMPUTE_ENGINE}/skus?pageSize=5000" + (f"&pageToken={escape(token)}" if token else "")


def next_token(page: Mapping[str, object]) -> str:
    """What the next page is asked for with; empty after the last."""
    token = page.get("nextPageToken")
    return token if isinstance(token, str) else ""


def skus_of(page: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The parts on one page. Raises `HeadraceError` if it is none."""
    skus = page.get("skus")
    if not isinstance(skus, list):
        raise HeadraceError(
            "Google's price catalogue has no skus",
            rule="They are its prices",
            fix="Update Headrace; until then the prices it has stay",
            kind=ErrorKind.UNAVAILABLE,
        )
    return [sku for sku in skus if isinstance(sku, dict)]


def quotes(skus: Iterable[Mapping[str, object]], region: str, instances: Collection[str]) -> Iterator[Quote]:
    """The prices of those `instances` of which all parts are there."""
    prices = dict(_part_prices(skus, region))
    for instance in instances:
        parts = MACHINES[instance].parts if instance in MACHINES else {}
        if parts and parts.keys() <= prices.keys():
            usd = sum(count * prices[part] for part, count in parts.items())
            source = "Cloud Billing catalogue, on demand, the sum of cores, memory and GPUs, without local SSD"
            yield Quote("GCP", instance, region, round(usd, 6), source)


def _part_prices(skus: Iterable[Mapping[str, object]], region: str) -> Iterator[tuple[str, float]]:
    """Part -> US dollars an hour of one of it, on demand in `region`."""
    wanted = {part for machine in MACHINES.values() for part in machine.parts}
    for sku in skus:
        category, regions = sku.get("category"), sku.get("serviceRegions")
        if not isinstance(category, dict) or category.get("usageType") != "OnDemand":
            continue
        if not isinstance(regions, list) or region not in regions:
            continue
        part = _plain(str(sku.get("description") or "").partition(" running in ")[0])
        if part in wanted and (price := _hourly(sku)) is not None:
            yield part, price


def _plain(name: str) -> str:
    """The catalogue writes Nvidia and Tesla before some GPUs only, and not all series alike."""
    return re.sub(r"nvidia|tesla|\s", "", name.lower())


def _hourly(sku: Mapping[str, object]) -> float | None:
    """The rate of the latest price from the first unit on; None unless it is in dollars an hour."""
    try:
        expression = sku["pricingInfo"][-1]["pricingExpression"]  # type: ignore[index]
        price = expression["tieredRates"][0]["unitPrice"]
        if expression["usageUnit"] not in ("h", "GiBy.h") or price["currencyCode"] != "USD":
            return None
        usd = int(price.get("units") or 0) + int(price.get("nanos") or 0) * _NANOS
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return usd if usd > 0 else None
