"""The ASGI application: a request goes to its route if it may, and every error becomes an answer."""

import logging

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server.access import Guard
from headrace.server.cors import Cors
from headrace.server.docs import Documentation
from headrace.server.errors import envelope, headers_of, status_of
from headrace.server.hosts import Hosts
from headrace.server.http import AsgiApp, ClientGone, Exchange, Receive, Scope, Send
from headrace.server.routes import ROUTES, RouteTable
from headrace.server.sse import error_event
from headrace.server.state import ServerState

_log = logging.getLogger(__name__)


def create_app(state: ServerState) -> AsgiApp:
    """The application that serves `state`."""
    return _Application(state)


class _Application:
    """What it takes to answer a request, made once a server."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._routes = RouteTable(Documentation(ROUTES, state.options.root_path).routes)
        self._hosts = Hosts(state.options)
        self._guard = Guard(state.options)
        self._cors = Cors(state.options)
        self._root_path = state.options.root_path
        self._max_body_bytes = state.options.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"Headrace speaks HTTP, not {scope['type']}")
        exchange = Exchange(scope, receive, send, max_body_bytes=self._max_body_bytes)
        self._state.metrics.on_request()
        try:
            await self._answer(exchange)
        except ClientGone:
            return
        except HeadraceError as error:
            await _answer_error(exchange, error)
        except Exception:
            _log.exception("Unexpected error in %s %s", exchange.method, exchange.path)
            what = "The server met an error that it did not expect"
            unexpected = HeadraceError(what, fix="Its log says more", kind=ErrorKind.INTERNAL)
            await _answer_error(exchange, unexpected)
        finally:
            self._state.metrics.on_response(exchange.status)

    async def _answer(self, exchange: Exchange) -> None:
        self._hosts.check(exchange)
        if self._root_path:
            exchange.path = _below(self._root_path, exchange.path)
        exchange.extra_headers = self._cors.headers(exchange)
        if self._cors.is_preflight(exchange):
            await exchange.answer(b"", headers=self._cors.preflight_headers(exchange))
            return
        route = self._routes.find(exchange.method, exchange.path)
        self._guard.check(route.access, exchange)
        await route.handler(self._state, exchange)


def _below(root: str, path: str) -> str:
    """`path` without the prefix that a proxy shows the server under, whether or not the proxy has removed it."""
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


async def _answer_error(exchange: Exchange, error: HeadraceError) -> None:
    if exchange.started:
        await exchange.end_stream(error_event(error))
    else:
        await exchange.answer(envelope(error), status=status_of(error), headers=headers_of(error))
