"""/health, /ready, /version and /load: the truth about the server, at any time."""

from headrace import __version__
from headrace.server.http import Exchange
from headrace.server.sse import encode_json
from headrace.server.state import ServerState


async def health(state: ServerState, exchange: Exchange) -> None:
    """200 while the engine process lives, also while it loads; else a 503 that says why not."""
    if not state.client.alive:
        raise state.client.refusal()
    await exchange.answer(b"{}")


async def ready(state: ServerState, exchange: Exchange) -> None:
    """200 once requests can be taken; before, and after a failure, a 503 that says why not."""
    state.client.check_ready()
    await exchange.answer(b"{}")


async def version(state: ServerState, exchange: Exchange) -> None:
    """Which Headrace this is."""
    await exchange.answer(encode_json({"version": __version__}))


async def load(state: ServerState, exchange: Exchange) -> None:
    """How many sequences are being worked on."""
    await exchange.answer(encode_json({"server_load": state.client.num_open_sequences}))
