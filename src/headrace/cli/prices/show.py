"""`headrace plan prices show`: every price with its date and source."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer


def show(as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False) -> None:
    """Show the prices that plans are costed with: on demand, of the date and from the source that stand beside each.

    \b
    Examples:
      headrace plan prices show
      headrace plan prices show --json
    """
    from headrace.cli.columns import aligned
    from headrace.planner.price_book import known_prices
    from headrace.planner.prices import stale_warning

    prices = known_prices()
    if as_json:
        print(json.dumps([asdict(price) for price in prices], indent=2))
        return
    rows = [
        (each.provider, each.instance, f"{each.gpus} x {each.gpu}", each.region, f"{each.usd_per_hour:.4f}", each.as_of)
        for each in sorted(prices, key=lambda price: (price.provider, price.usd_per_hour))
    ]
    heads = ("provider", "instance", "GPUs", "region", "$/hour", "of")
    print(*aligned(heads, rows, right=(4,)), sep="\n")
    print()
    for source in dict.fromkeys((price.provider, price.source) for price in prices):
        print(f"{source[0]}: {source[1]}")
    if (warning := stale_warning(prices, datetime.now(UTC).date())) is not None:
        print(f"warning: {warning}")
