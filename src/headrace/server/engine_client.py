"""The server's side of the engine process. It owns the truth about the engine: starting, ready, failed or stopping."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server.dispatcher import Dispatcher
from headrace.server.errors import ApiError, unavailable
from headrace.server.launcher import EngineLauncher
from headrace.server.model_text import ModelText
from headrace.server.submission import Submission
from headrace.text.stream import RequestStream
from headrace.wire.channel import EngineChannel
from headrace.wire.messages import (
    AddRequest,
    EngineFailed,
    EngineStats,
    Event,
    Ready,
    RequestFailed,
    Shutdown,
    StepOutput,
)

T = TypeVar("T")

LAST_WORD_SECONDS = 0.2
"""How long an engine's own reason for ending may take to arrive after the process is gone."""


class EngineClient:
    """The one connection to the engine. All methods belong to the event loop's thread."""

    def __init__(self, launcher: EngineLauncher) -> None:
        self._launcher = launcher
        self._channel = EngineChannel()
        self._dispatcher = Dispatcher(self._channel.send)
        self._text: ModelText | None = None
        self._ready: Ready | None = None
        self._stopping = False
        self._settled = asyncio.Event()
        self.loading = False
        """Whether `load` runs, which may be long after the server has been stopped."""
        self.failure: HeadraceError | None = None
        self.stats = EngineStats()

    async def start(self) -> None:
        """Start the engine and load the model's text side. Returns when ready; raises why it cannot be."""
        loop = asyncio.get_running_loop()
        self._channel.listen(self._on_event)

        def on_exit(reason: str) -> None:
            loop.call_soon_threadsafe(self._on_exit, reason)

        self._launcher.start(self._channel.commands_address, self._channel.events_address, on_exit)
        try:
            self.loading = True
            self._text = await _on_daemon_thread(self._load)
        except HeadraceError as error:
            self._fail(error)
        else:
            self._settle()
        await self._settled.wait()
        if self.failure is not None:
            raise self.failure

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """End the engine process and wait until it is gone. Open requests fail."""
        self._stopping = True
        self.fail_open_requests(stopping())
        self._channel.send(Shutdown())
        await asyncio.to_thread(self._launcher.stop, grace_seconds)
        self._channel.close()

    def kill(self) -> None:
        """End the engine process now, without waiting for anything."""
        self._launcher.stop(0.0)
        self._channel.remove_directory()

    @property
    def alive(self) -> bool:
        """Whether the engine process lives and has not reported a failure."""
        return self.failure is None and not self._stopping and self._launcher.alive()

    @property
    def ready(self) -> bool:
        """Whether requests can be taken now."""
        return self.alive and self._text is not None and self._ready is not None

    @property
    def text(self) -> ModelText:
        """The model's tokenizer and defaults. Raises a 503 while there is none."""
        self.check_ready()
        assert self._text is not None
        return self._text

    @property
    def limits(self) -> Ready:
        """What the engine said of itself when it became ready. Raises a 503 before."""
        self.check_ready()
        assert self._ready is not None
        return self._ready

    @property
    def num_open_sequences(self) -> int:
        """How many sequences the engine works on for this server."""
        return self._dispatcher.num_open_sequences

    def check_ready(self) -> None:
        """Raise a 503 that says why, unless requests can be taken now."""
        if not self.ready:
            raise self.refusal()

    def new_uids(self, count: int) -> list[int]:
        """Names for `count` sequences, never used before."""
        return self._dispatcher.new_uids(count)

    def submit(self, requests: Sequence[tuple[AddRequest, RequestStream]]) -> Submission:
        """Send requests that are answered together. Raises a 503 if the engine cannot take them."""
        self.check_ready()
        return self._dispatcher.submit(requests)

    def fail_open_requests(self, error: HeadraceError) -> None:
        """End every open request with `error`."""
        self._dispatcher.fail_all(error)

    def refusal(self) -> HeadraceError:
        """The 503 that says why requests cannot be taken now."""
        if (failure := self.failure) is not None:  # whoever's fault it was, it is not this request's
            return HeadraceError(failure.what, rule=failure.rule, fix=failure.fix, kind=ErrorKind.UNAVAILABLE)
        if self._stopping:
            return stopping()
        if self._settled.is_set():
            return unavailable("The engine has stopped", "Try again", retry_after_seconds=1)
        fix = "Try again in a moment; /ready tells when"
        return unavailable("The model is still loading", fix, retry_after_seconds=2)

    def _load(self) -> ModelText:
        try:
            return self._launcher.load()
        finally:
            self.loading = False

    def _on_event(self, event: Event) -> None:
        match event:
            case StepOutput():
                self._dispatcher.on_step(event)
            case RequestFailed():
                self._dispatcher.on_request_failed(event)
            case EngineStats():
                self.stats = event
            case Ready():
                self._ready = event
                self._channel.remove_directory()  # both ends are connected, and no one else can be from now on
                self._settle()
            case EngineFailed():
                kind = ErrorKind(event.status)
                self._fail(HeadraceError(event.what, rule=event.rule, fix=event.fix, param=event.param, kind=kind))

    def _on_exit(self, reason: str) -> None:
        """The process may have sent its own reason just before it ended: that is on its way, and tells more."""
        if not self._stopping:
            what = f"The engine process ended: {reason}"
            error = HeadraceError(what, fix="Start the server again", kind=ErrorKind.UNAVAILABLE)
            asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self._fail, error)

    def _fail(self, error: HeadraceError) -> None:
        """The engine is lost. The first error stays: the process ends after it has said why."""
        if self.failure is None:
            self.failure = error
        self.fail_open_requests(self.refusal())
        self._settled.set()

    def _settle(self) -> None:
        if self._text is not None and self._ready is not None:
            self._settled.set()


async def _on_daemon_thread(work: Callable[[], T]) -> T:
    """What `work` returns. Unlike a pool's, this thread does not keep the process alive: a download may take hours."""
    future: Future[T] = Future()

    def run() -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile: nobody asks any more
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

    threading.Thread(target=run, name="headrace-load", daemon=True).start()
    return await asyncio.wrap_future(future)


def stopping() -> ApiError:
    """The 503 for what is open, or comes, while the server stops."""
    return unavailable("The server is stopping", "Send the request again", retry_after_seconds=1)
