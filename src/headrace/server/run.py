"""A server's life: listen at once, load, serve, and on a signal let what runs finish before the engine is stopped."""

import asyncio
import contextlib
import errno
import gc
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from headrace.core.counted import counted
from headrace.core.errors import HeadraceError
from headrace.server.app import create_app
from headrace.server.connection import with_connection
from headrace.server.engine_client import stopping
from headrace.server.manners import MAX_HEAD_BYTES, mannered_protocol
from headrace.server.state import ServerState

_log = logging.getLogger(__name__)

BACKLOG = 2_048
_FORCED_EXIT_CODE = 130
_LAST_WORD_SECONDS = 0.5
_ARRIVAL_SECONDS = 0.2
"""What clients had sent when the listener was closed is read for so long; only then are idle connections closed."""


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `HeadraceError` if the address cannot be had; port 0 takes any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it, a second write waits 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


def settle_memory() -> None:
    """For a process that only serves, once all is loaded: that is no garbage, and looking through it stops streams."""
    gc.collect()
    gc.freeze()


async def serve(
    state: ServerState,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
) -> None:
    """Serve until a signal asks to stop. Raises why, if the engine cannot start, or not again.

    The first SIGINT or SIGTERM stops accepting and gives open requests `shutdown_timeout_seconds`; a second one ends
    the process at once.
    """
    try:
        server = _Server(state)
        await _load_and_serve(server, state, listener, on_ready)
    finally:
        await state.client.stop()
        state.threads.shutdown()


async def _load_and_serve(
    server: "_Server", state: ServerState, listener: socket.socket, on_ready: Callable[[], None]
) -> None:
    http = asyncio.create_task(server.serve(sockets=[listener]))
    engine = asyncio.create_task(_run_engine(state, on_ready))
    try:
        await asyncio.wait((http, engine), return_when=asyncio.FIRST_COMPLETED)
        if engine.done():
            engine.result()
        await asyncio.wait((http,))
    finally:
        engine.cancel()
        server.stop()
        await asyncio.wait((http,))


async def _run_engine(state: ServerState, on_ready: Callable[[], None]) -> None:
    await state.client.start()
    on_ready()
    await state.client.keep_running()


class _Server(uvicorn.Server):
    """uvicorn's server, except for signals: what runs is drained by us, and the process then ends with code 0."""

    def __init__(self, state: ServerState) -> None:
        super().__init__(_uvicorn_config(state))
        self._client = state.client
        self._drain_seconds = state.options.shutdown_timeout_seconds

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
        self.stop()

    def stop(self) -> None:
        """Begin to stop."""
        self._client.drain()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, let open requests finish, and end those that take too long with an error."""
        for listening in self.servers:
            listening.close()
        await asyncio.sleep(_ARRIVAL_SECONDS)
        self._tell_what_is_open()
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

    def _tell_what_is_open(self) -> None:
        count = len(self.server_state.tasks)
        if count:
            what = counted(count, "request")
            _log.warning("Finishing %s (up to %g s); Ctrl-C again ends at once.", what, self._drain_seconds)

    def _hang_up(self) -> None:
        """Drop the clients that do not even read the error."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


def _uvicorn_config(state: ServerState) -> uvicorn.Config:
    options = state.options
    verbose = options.uvicorn_log_level in ("info", "debug", "trace")
    return uvicorn.Config(
        create_app(state),
        http=with_connection(mannered_protocol(options), options.reader_stall_timeout_seconds),
        h11_max_incomplete_event_size=16 * MAX_HEAD_BYTES,  # the connection refuses sooner, and says why
        timeout_keep_alive=math.ceil(options.timeout_keep_alive_seconds),
        ssl_keyfile=options.ssl_keyfile,
        ssl_certfile=options.ssl_certfile,
        ssl_ca_certs=options.ssl_ca_certs,
        ssl_cert_reqs=options.ssl_cert_reqs,
        log_level=options.uvicorn_log_level,
        access_log=verbose and not options.disable_uvicorn_access_log,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=round(options.shutdown_timeout_seconds) + 2,
    )


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
