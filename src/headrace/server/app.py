"""The ASGI application: which path is answered by which function, and how every error becomes an answer."""

import logging
from collections.abc import Awaitable, Callable

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server.chat import chat_completions
from headrace.server.completions import completions
from headrace.server.errors import ApiError, envelope, headers_of, status_of
from headrace.server.health import health, load, ready, version
from headrace.server.http import AsgiApp, ClientGone, Exchange, Receive, Scope, Send
from headrace.server.models import MODELS_PATH, list_models, show_model
from headrace.server.sse import error_event
from headrace.server.state import ServerState
from headrace.server.tokens import detokenize, tokenize

Handler = Callable[[ServerState, Exchange], Awaitable[None]]

ROUTES: dict[str, tuple[str, Handler]] = {
    "/v1/chat/completions": ("POST", chat_completions),
    "/v1/completions": ("POST", completions),
    MODELS_PATH: ("GET", list_models),
    "/tokenize": ("POST", tokenize),
    "/detokenize": ("POST", detokenize),
    "/health": ("GET", health),
    "/ready": ("GET", ready),
    "/version": ("GET", version),
    "/load": ("GET", load),
}
"""Path -> (method, handler); HEAD goes with GET."""

NOT_BUILT = {
    "/metrics": "/load tells how many sequences are open",
    "/v1/responses": "Use /v1/chat/completions",
    "/v1/embeddings": "The models that are served here generate text",
    "/pooling": "The models that are served here generate text",
}
"""Path that other servers have -> what there is instead."""

_log = logging.getLogger(__name__)


def create_app(state: ServerState) -> AsgiApp:
    """The application that serves `state`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"Headrace speaks HTTP, not {scope['type']}")
        exchange = Exchange(scope, receive, send)
        try:
            await _handler(exchange)(state, exchange)
        except ClientGone:
            return
        except HeadraceError as error:
            await _answer_error(exchange, error)
        except Exception:
            _log.exception("Unexpected error in %s %s", exchange.method, exchange.path)
            what = "The server met an error that it did not expect"
            unexpected = HeadraceError(what, fix="Its log says more", kind=ErrorKind.INTERNAL)
            await _answer_error(exchange, unexpected)

    return app


def _handler(exchange: Exchange) -> Handler:
    path = exchange.path.rstrip("/")
    method, handler = ROUTES.get(path, (None, None))
    if handler is None and path.startswith(f"{MODELS_PATH}/"):
        method, handler = "GET", show_model
    if path in NOT_BUILT:
        raise ApiError(f"{path} is not supported yet", fix=NOT_BUILT[path], kind=ErrorKind.NOT_FOUND)
    if method is None or handler is None:
        served = ", ".join(ROUTES)
        raise ApiError(f"There is nothing at {exchange.path}", fix=f"Served: {served}", kind=ErrorKind.NOT_FOUND)
    allowed = ("GET", "HEAD") if method == "GET" else (method,)
    if exchange.method not in allowed:
        headers = {"Allow": ", ".join(allowed)}
        raise ApiError(f"{exchange.method} is not allowed at {path}", fix=f"Use {method}", status=405, headers=headers)
    return handler


async def _answer_error(exchange: Exchange, error: HeadraceError) -> None:
    if exchange.started:
        await exchange.end_stream(error_event(error))
    else:
        await exchange.answer(envelope(error), status=status_of(error), headers=headers_of(error))
