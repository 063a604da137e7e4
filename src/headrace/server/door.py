"""The door of the routes that make work for the engine: who does not get in is told so before anything is done."""

from headrace.server.http import Exchange
from headrace.server.route import Handler
from headrace.server.state import ServerState


def admitted(handler: Handler) -> Handler:
    """`handler`, for requests that have a place in the queue. It is given back when the exchange ends in any way.

    The first check needs nothing of the request, so that a server with too much to do says so at once; the place is
    taken when the body is there, so that a client that is slow to send it keeps nobody out.
    """

    async def through_the_door(state: ServerState, exchange: Exchange) -> None:
        state.client.check_ready()
        state.admission.check()
        num_bytes = len(await exchange.body())
        with state.admission.reserve(num_bytes) as exchange.ticket:
            await handler(state, exchange)

    return through_the_door
