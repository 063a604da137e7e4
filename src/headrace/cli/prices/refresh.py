"""`headrace plan prices refresh`: today's prices of the instances that are known, kept for this user."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.prices.sources import KEY_VARIABLES
from headrace.core.errors import ErrorKind, HeadraceError

if TYPE_CHECKING:
    from headrace.cli.prices.fetch import PriceSource
    from headrace.planner.price_drift import Change, Drift
    from headrace.planner.price_feeds.quote import Quote
    from headrace.planner.prices import Price


def refresh(
    provider: Annotated[
        list[str] | None, typer.Option(help="aws, azure or gcp, repeatable; else all that can be asked.")
    ] = None,
    gcp_api_key: Annotated[
        str | None, typer.Option(help="A key for Google's Cloud Billing API.", envvar=list(KEY_VARIABLES))
    ] = None,
    max_change: Annotated[float, typer.Option(help="Prices that moved by more than this share are held back.")] = 0.2,
    accept: Annotated[bool, typer.Option("--accept", help="Keep those too.")] = False,
    mirrors: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="PROVIDER=URL", help="Where a copy of a list is, with the provider's paths."),
    ] = None,
) -> None:
    """Ask the providers' public price lists for today's prices of the instances that plans know.

    \b
    Examples:
      headrace plan prices refresh
      headrace plan prices refresh --provider azure --accept
      GCP_API_KEY=... headrace plan prices refresh --provider gcp

    What moved far is listed and held back until --accept. Modal and Replicate have no such list. AWS's file of a region
    is several hundred MB; it is read as it comes, and nothing of it is stored.
    """
    from headrace.cli.prices.sources import price_sources
    from headrace.planner.price_drift import drift

    failures: list[HeadraceError] = []
    held: list[Change] = []
    today = datetime.now(UTC).date()
    for source in price_sources(provider or [], gcp_api_key, mirrors or []):
        prices = _prices_of(source.provider)
        print(f"{source.provider}: asking {source.origin}", flush=True)
        try:
            found = drift(prices, _quotes(source, prices), today, max_change)
        except HeadraceError as error:
            if error.param is not None:
                raise
            failures.append(error)
            continue
        _keep(found, accept=accept)
        _say(source.provider, found, accept=accept)
        held += [] if accept else found.large
    if failures:
        raise _joined(failures)
    if held:
        raise HeadraceError(
            f"{len(held)} price{'s' if len(held) > 1 else ''} moved by more than {max_change:.0%} and stayed as before",
            rule="What moves far is looked at first (--max-change)",
            fix="Compare with the provider's own page, then run it again with --accept",
        )


def _prices_of(provider: str) -> list["Price"]:
    from headrace.planner.price_book import known_prices

    return sorted((each for each in known_prices() if each.provider == provider), key=lambda price: price.region)


def _quotes(source: "PriceSource", prices: Sequence["Price"]) -> Iterator["Quote"]:
    from headrace.cli.prices.providers import ASKS

    _, ask = ASKS[source.provider]
    for region, group in groupby(prices, key=lambda price: price.region):
        yield from ask(source, region, [price.instance for price in group])


def _keep(found: "Drift", *, accept: bool) -> None:
    from headrace.planner.price_book import keep, kept_prices

    changes = (*found.small, *(found.large if accept else ()))
    kept = {(price.provider, price.instance): price for price in kept_prices()}
    kept |= {(change.new.provider, change.new.instance): change.new for change in changes}
    if changes:
        keep(kept.values())


def _say(provider: str, found: "Drift", *, accept: bool) -> None:
    from headrace.planner.price_book import kept_path

    kept = (*found.small, *(found.large if accept else ()))
    moved = sum(change.share != 0 for change in kept)
    print(f"{provider}: {len(kept)} prices are of today, {moved} of them moved; in {kept_path()}")
    for change in (*found.large, *(change for change in found.small if change.share != 0)):
        old, new = change.old, change.new
        held = "  held back" if change in found.large and not accept else ""
        print(f"  {old.instance}: ${old.usd_per_hour:g} -> ${new.usd_per_hour:g} an hour ({change.share:+.1%}){held}")
    for price in found.missing:
        print(f"  {price.instance}: not in the list for {price.region}; stays ${price.usd_per_hour:g} of {price.as_of}")


def _joined(failures: Sequence[HeadraceError]) -> HeadraceError:
    """All that went wrong as one error, after those providers that answered are kept."""
    if len(failures) == 1:
        return failures[0]
    fixes = dict.fromkeys(error.fix for error in failures)
    return HeadraceError("; ".join(error.what for error in failures), fix="; ".join(fixes), kind=ErrorKind.UNAVAILABLE)
