"""A server for this process alone: `headrace serve`'s own, on a Unix socket that only this user can reach."""

import asyncio
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from headrace.cli.client.address import ServerAddress
from headrace.cli.engine_launcher import EngineProcess
from headrace.core.config import EngineConfig
from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server import event_loop
from headrace.server.engine_client import EngineClient
from headrace.server.options import ServerOptions
from headrace.server.run import BACKLOG, serve
from headrace.server.state import ServerState


class LocalServer:
    """Runs on a thread of its own, so that Ctrl-C is the batch's; leaving the block ends it and its engine."""

    def __init__(self, config: EngineConfig, names: tuple[str, ...], launcher: EngineProcess | None = None) -> None:
        self._config = config
        self._names = names
        self._launcher = launcher or EngineProcess(config)
        self._directory = Path(tempfile.mkdtemp(prefix="headrace-"))  # mode 0700
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-local-server", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> ServerAddress:
        """Wait until the model is loaded. Raises `HeadraceError` if it cannot be."""
        self._thread.start()
        try:
            self._settled.wait()
            self.check()
        except BaseException:
            self._stop()
            raise
        path = str(self._directory / "http")
        return ServerAddress("the server in this process", "localhost", 80, unix_path=path)

    def __exit__(self, *_: object) -> None:
        self._stop()

    def check(self) -> None:
        """Raise why the server has ended, if it has."""
        if isinstance(self._failure, Exception):
            raise self._failure
        if self._settled.is_set() and not self._thread.is_alive():
            raise HeadraceError("The server in this process has stopped", kind=ErrorKind.UNAVAILABLE)

    def _stop(self) -> None:
        if self._loop is not None and self._task is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self) -> None:
        try:
            event_loop.run(self._serve())
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._failure = error
        finally:
            self._settled.set()

    async def _serve(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        config = self._config
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self._directory / "http"))
        listener.listen(BACKLOG)
        client = EngineClient(self._launcher)
        unbounded = ServerOptions(max_num_queued_reqs=0, max_num_queued_tokens=0, max_queue_time_seconds=0)
        state = ServerState(client, self._names, config.model, unbounded, max_logprobs=config.max_logprobs)
        await serve(state, listener, on_ready=self._settled.set)
