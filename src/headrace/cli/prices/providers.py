"""Each provider's way from what is wanted to quotes: which pages are read, in which order."""

from collections.abc import Callable, Collection, Iterator, Mapping
from urllib.parse import urlsplit

from headrace.cli.prices.fetch import PriceSource
from headrace.core.errors import ErrorKind, HeadraceError
from headrace.planner.price_feeds import aws, azure, gcp
from headrace.planner.price_feeds.quote import Quote

_MOST_PAGES = 100

Ask = Callable[[PriceSource, str, Collection[str]], Iterator[Quote]]
"""(source, region, instances) -> quotes. Raises `HeadraceError` if they cannot be had."""


def _ask_aws(source: PriceSource, region: str, instances: Collection[str]) -> Iterator[Quote]:
    return aws.quotes(source.lines(aws.price_list_path(region)), instances)


def _ask_azure(source: PriceSource, region: str, instances: Collection[str]) -> Iterator[Quote]:
    path: str | None = azure.first_path(region, instances)
    for _ in range(_MOST_PAGES):
        page = source.page(path or "")
        yield from azure.quotes(page)
        if (path := azure.next_link(page)) is None:
            return
        if _host(path) != _host(source.origin):
            raise _astray(source, f"its next page is {path!r}")
    raise _astray(source, f"it has more than {_MOST_PAGES} pages")


def _ask_gcp(source: PriceSource, region: str, instances: Collection[str]) -> Iterator[Quote]:
    skus: list[Mapping[str, object]] = []
    token = ""
    for _ in range(_MOST_PAGES):
        page = source.page(gcp.page_path(token))
        skus += gcp.skus_of(page)
        if not (token := gcp.next_token(page)):
            return gcp.quotes(skus, region, instances)
    raise _astray(source, f"it has more than {_MOST_PAGES} pages")


def _host(url: str) -> tuple[str, str | None]:
    """Without the port, which Azure's own links name."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname


def _astray(source: PriceSource, how: str) -> HeadraceError:
    return HeadraceError(
        f"The price list of {source.provider} cannot be followed: {how}",
        fix="Try again later; until then the prices that were known stay",
        kind=ErrorKind.UNAVAILABLE,
    )


ASKS: Mapping[str, tuple[str, Ask]] = {
    "AWS": (aws.ORIGIN, _ask_aws),
    "Azure": (azure.ORIGIN, _ask_azure),
    "GCP": (gcp.ORIGIN, _ask_gcp),
}
"""Provider -> where its list is, and how it is read. Modal and Replicate have none."""
