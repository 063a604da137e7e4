"""What a server serves, as it says itself."""

import json

from headrace.cli.client.address import ServerAddress
from headrace.cli.client.http import ConnectionFailed, HttpClient
from headrace.core.errors import HeadraceError


async def first_model(client: HttpClient, address: ServerAddress) -> str:
    """The first model that the server lists. Raises `HeadraceError` if it cannot be reached or lists none."""
    try:
        answer = await client.request("GET", "/v1/models")
    except ConnectionFailed as error:
        raise address.unreachable(error) from None
    try:
        return str(json.loads(answer.body)["data"][0]["id"])
    except (ValueError, KeyError, IndexError, TypeError):
        said = answer.body[:200].decode(errors="replace")
        raise HeadraceError(
            f"{address.url} does not name a model: it answered {answer.status} and {said!r} for /v1/models",
            rule="A server that speaks OpenAI's API lists its models there",
            fix="Check the address and the key, or name the model with --model",
        ) from None
