"""A server's life: listen at once, load, serve, and on a signal let what runs finish before the engine is stopped."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from headrace.core.errors import HeadraceError
from headrace.server.app import create_app
from headrace.server.engine_client import stopping
from headrace.server.state import ServerState

BACKLOG = 2_048
_FORCED_EXIT_CODE = 130
_LAST_WORD_SECONDS = 0.5


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `HeadraceError` if the address cannot be had; port 0 takes any free one."""
    if not host:
        raise HeadraceError(
            f"The host is {host!r}",
            rule="It is the address to listen on",
            fix="Use 127.0.0.1 for this machine only, 0.0.0.0 for every interface",
            param="host",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


async def serve(
    state: ServerState,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
    shutdown_timeout_seconds: float = 5.0,
    log_level: str = "warning",
) -> None:
    """Serve until a signal asks to stop. Raises why, if the engine cannot start.

    The first SIGINT or SIGTERM stops accepting and gives open requests `shutdown_timeout_seconds`; a second one ends
    the process at once.
    """
    try:
        server = _Server(state, shutdown_timeout_seconds, log_level)
        await _load_and_serve(server, state, listener, on_ready)
    finally:
        await state.client.stop()
        state.threads.shutdown(wait=False, cancel_futures=True)


async def _load_and_serve(
    server: "_Server", state: ServerState, listener: socket.socket, on_ready: Callable[[], None]
) -> None:
    http = asyncio.create_task(server.serve(sockets=[listener]))
    start = asyncio.create_task(state.client.start())
    try:
        await asyncio.wait((http, start), return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            on_ready()
        await asyncio.wait((http,))
    finally:
        start.cancel()
        server.should_exit = True
        await asyncio.wait((http,))


class _Server(uvicorn.Server):
    """uvicorn's server, except for signals: what runs is drained by us, and the process then ends with code 0."""

    def __init__(self, state: ServerState, shutdown_timeout_seconds: float, log_level: str) -> None:
        config = uvicorn.Config(
            create_app(state),
            log_level=log_level,
            access_log=log_level in ("info", "debug", "trace"),
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=round(shutdown_timeout_seconds) + 2,
        )
        super().__init__(config)
        self._client = state.client
        self._drain_seconds = shutdown_timeout_seconds

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but without raising the signals again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals go to the main thread; whoever runs a server in another one stops it by cancelling
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second does not wait."""
        if self.should_exit:
            self._client.kill()
            os._exit(_FORCED_EXIT_CODE)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, let open requests finish, and end those that take too long with an error."""
        loop = asyncio.get_running_loop()
        deadlines = (
            loop.call_later(self._drain_seconds, self._client.fail_open_requests, stopping()),
            loop.call_later(self._drain_seconds + _LAST_WORD_SECONDS, self._hang_up),
        )
        try:
            await super().shutdown(sockets)
        finally:
            for deadline in deadlines:
                deadline.cancel()

    def _hang_up(self) -> None:
        """Drop the clients that do not even read the error."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


def _cannot_listen(host: str, port: int, error: OSError) -> HeadraceError:
    if error.errno == errno.EADDRINUSE:
        return HeadraceError(
            f"Port {port} on {host} is in use",
            rule="Only one program can listen there",
            fix=f"Use another one, for example --port {port + 1}, or stop the program that has it",
            param="port",
        )
    what = f"Cannot listen on {host} port {port}: {error.strerror or error}"
    return HeadraceError(what, fix="Check --host and --port; ports below 1024 need privileges", param="host")
