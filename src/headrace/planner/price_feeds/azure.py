"""Azure's pay-as-you-go prices from the Retail Prices API, which needs no account
(https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices).
"""

from collections.abc import Collection, Iterator, Mapping
from urllib.parse import quote as escape

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.planner.price_feeds.quote import Quote, positive

ORIGIN = "https://prices.azure.com"
_PREFIX = "Standard_"
_SOMETHING_ELSE = ("Spot", "Low Priority", "Windows", "Cloud Services", "CloudServices")
"""Words in the names of what is not a Linux machine that stays."""


def first_path(region: str, instances: Collection[str]) -> str:
    """What to ask for, from the origin on: Linux and Windows, spot and on demand come together."""
    names = " or ".join(f"armSkuName eq '{_PREFIX}{name}'" for name in sorted(instances))
    clauses = ("serviceName eq 'Virtual Machines'", f"armRegionName eq '{region}'", "priceType eq 'Consumption'")
    return f"/api/retail/prices?currencyCode=USD&$filter={escape(' and '.join((*clauses, f'({names})')))}"


def next_link(page: Mapping[str, object]) -> str | None:
    """The whole address of the next page; None after the last."""
    link = page.get("NextPageLink")
    return link if isinstance(link, str) and link else None


def quotes(page: Mapping[str, object]) -> Iterator[Quote]:
    """The prices on one page. Raises `HeadraceError` if it is none."""
    items = page.get("Items")
    if not isinstance(items, list):
        raise HeadraceError(
            "Azure's price list has no Items",
            rule="They are its prices",
            fix="Update Headrace; until then the prices it has stay",
            kind=ErrorKind.UNAVAILABLE,
        )
    for item in items:
        if isinstance(item, dict) and (quote := _quote(item)) is not None:
            yield quote


def _quote(item: Mapping[str, object]) -> Quote | None:
    """None for another kind of machine or of price, and for meters that another region answers for."""
    instance, region = str(item.get("armSkuName") or ""), str(item.get("armRegionName") or "")
    names = " ".join(str(item.get(name)) for name in ("productName", "skuName", "meterName"))
    expected = {"type": "Consumption", "unitOfMeasure": "1 Hour", "currencyCode": "USD"}
    if any(item.get(name) != value for name, value in expected.items()) or item.get("isPrimaryMeterRegion") is False:
        return None
    price, since = positive(item.get("retailPrice")), str(item.get("effectiveStartDate") or "")[:10]
    if price is None or not instance.startswith(_PREFIX) or any(word in names for word in _SOMETHING_ELSE):
        return None
    source = f"Azure Retail Prices, pay as you go, Linux, effective {since}"
    return Quote("Azure", instance.removeprefix(_PREFIX), region, price, source)
