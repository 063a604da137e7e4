"""Who is asked for prices, and where: the providers' own lists, or copies of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from headrace.core.errors import ErrorKind, HeadraceError

if TYPE_CHECKING:
    from headrace.cli.prices.fetch import PriceSource

KEY_VARIABLES: Final = ("GCP_API_KEY", "GOOGLE_API_KEY")
"""Where Google's API key is looked for."""


def price_sources(named: Sequence[str], key: str | None, mirrors: Sequence[str]) -> "list[PriceSource]":
    """Who is asked: those of `named`, or all. `mirrors` read PROVIDER=URL. Raises `HeadraceError` for what is wrong.

    Without a key Google is left out with a word, if nobody named it.
    """
    from headrace.cli.prices.fetch import PriceSource
    from headrace.cli.prices.providers import ASKS

    wanted = [_provider(name, "provider") for name in named] or list(ASKS)
    origins = {provider: origin for provider, (origin, _) in ASKS.items()} | dict(map(_mirror, mirrors))
    if "GCP" in wanted and not key:
        if named:
            raise HeadraceError(
                "--gcp-api-key is not given",
                rule="Google's price catalogue wants an API key, which is free",
                fix=f"Set {KEY_VARIABLES[0]}, or leave GCP out",
                param="gcp_api_key",
            )
        wanted.remove("GCP")
        print(f"GCP: left out, its list wants an API key (--gcp-api-key or {KEY_VARIABLES[0]})")
    return [PriceSource(each, origins[each].rstrip("/"), (key or "") if each == "GCP" else "") for each in wanted]


def _mirror(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals or not url.startswith(("https://", "http://", "file://")):
        raise HeadraceError(
            f"--from is {text!r}",
            rule="It reads PROVIDER=URL, with an http, https or file URL",
            fix="For example --from aws=https://mirror.example.com",
            param="from",
        )
    return _provider(name, "from"), url


def _provider(name: str, param: str) -> str:
    from headrace.cli.prices.providers import ASKS

    for known in ASKS:
        if known.lower() == name.lower():
            return known
    raise HeadraceError(
        f"The provider {name!r} has no price list that is known",
        rule=f"Those that have are {', '.join(each.lower() for each in ASKS)}",
        fix="Name one of these; prices of Modal and Replicate come with a new version",
        param=param,
        kind=ErrorKind.NOT_FOUND,
    )
