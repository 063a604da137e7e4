"""EC2's on-demand prices from the AWS Price List's bulk file of a region, which needs no account.

The CSV form is read row by row as it comes: the file has several hundred megabytes. Its first five rows say what it is,
the sixth names the columns
(https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html).
"""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.planner.price_feeds.quote import Quote, positive

ORIGIN = "https://pricing.us-east-1.amazonaws.com"
_PREAMBLE_ROWS = 5
_ON_DEMAND = {
    "TermType": "OnDemand",
    "Unit": "Hrs",
    "Currency": "USD",
    "Tenancy": "Shared",
    "Operating System": "Linux",
    "Pre Installed S/W": "NA",
    "CapacityStatus": "Used",
    "operation": "RunInstances",
}
"""Column -> what it says of Linux by the hour with no software, reservation or host of one's own."""
_NEEDED = (*_ON_DEMAND, "Instance Type", "Region Code", "PricePerUnit")


def price_list_path(region: str) -> str:
    """Where the file of a region is, from the origin on."""
    return f"/offers/v1.0/aws/AmazonEC2/current/{region}/index.csv"


def quotes(lines: Iterable[str], instances: Collection[str]) -> Iterator[Quote]:
    """The prices of `instances`, in the order of the file; no more of it is read than these need.

    Raises `HeadraceError` if it is not such a file.
    """
    rows = _rows(lines)
    published = {row[0]: row[1] for row in islice(rows, _PREAMBLE_ROWS) if len(row) > 1}.get("Publication Date", "")
    names = next(rows, [])
    if missing := [name for name in _NEEDED if name not in names]:
        raise _no_list(f"has no column {', '.join(missing)}")
    source = f"AWS Price List, EC2 on demand, Linux, published {published[:10]}"
    wanted, place = set(instances), names.index("Instance Type")
    for row in rows:
        if len(row) <= place or row[place] not in wanted:
            continue
        if (quote := _quote(dict(zip(names, row, strict=False)), source)) is not None:
            yield quote
            wanted.discard(quote.instance)
            if not wanted:
                return


def _rows(lines: Iterable[str]) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines)
    except csv.Error as error:
        raise _no_list(f"cannot be read: {error}") from error


def _no_list(how: str) -> HeadraceError:
    return HeadraceError(
        f"The AWS price list {how}",
        rule="It is a CSV file whose sixth row names the columns",
        fix="Try again later, or update Headrace; until then the prices it has stay",
        kind=ErrorKind.UNAVAILABLE,
    )


def _quote(row: Mapping[str, str], source: str) -> Quote | None:
    if any(row.get(name) != value for name, value in _ON_DEMAND.items()):
        return None
    if row.get("MarketOption", "") not in ("", "OnDemand"):  # a capacity block is paid in advance, and listed as free
        return None
    price = positive(row.get("PricePerUnit"))
    return None if price is None else Quote("AWS", row["Instance Type"], row.get("Region Code", ""), price, source)
