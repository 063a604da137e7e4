"""/health, /ready, /live, /ping, /version and /load: the truth about the server, at any time."""

from headrace import __version__
from headrace.server.engine_client import stopping
from headrace.server.errors import unavailable
from headrace.server.http import Exchange
from headrace.server.sse import encode_json
from headrace.server.state import ServerState


async def health(state: ServerState, exchange: Exchange) -> None:
    """200 while the engine lives and moves, also while it loads or takes long over a step; else a 503 that says why."""
    client = state.client
    if not client.alive or client.seconds_late:
        raise client.refusal()
    await exchange.answer(encode_json({"status": "ready" if client.ready else "loading"}))


async def ready(state: ServerState, exchange: Exchange) -> None:
    """200 if a request that came now would be taken; else a 503 that says why not."""
    state.client.check_ready()
    if state.client.draining:
        raise stopping()
    if state.admission.full:
        seconds = state.admission.retry_after_seconds()
        raise unavailable("The queue is full", "Send requests elsewhere meanwhile", retry_after_seconds=seconds)
    await health(state, exchange)


async def ping(state: ServerState, exchange: Exchange) -> None:
    """SageMaker's question, which is what /ready answers."""
    await ready(state, exchange)


async def live(state: ServerState, exchange: Exchange) -> None:
    """200 as long as the HTTP process answers, whatever the engine does."""
    await exchange.answer(b"{}")


async def version(state: ServerState, exchange: Exchange) -> None:
    """Which Headrace this is."""
    await exchange.answer(encode_json({"version": __version__}))


async def load(state: ServerState, exchange: Exchange) -> None:
    """How many sequences are being worked on, and what waits for its first token."""
    admission = state.admission
    answer = {
        "server_load": state.client.num_open_sequences,
        "waiting_requests": admission.num_waiting,
        "waiting_tokens": admission.num_waiting_tokens,
    }
    await exchange.answer(encode_json(answer))


async def reset_prefix_cache(state: ServerState, exchange: Exchange) -> None:
    """Tell the engine to forget every cached prefix that no running request holds."""
    state.client.reset_prefix_cache()
    await exchange.answer(b"{}")
