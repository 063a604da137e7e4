"""The server's side of the engine. It owns the truth about it: starting, ready, lost and being started again, given up.

An engine that is lost takes its requests with it: each ends with an error that says why. Then the next one is started,
as often as the options allow.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server.admission import Admission
from headrace.server.dispatcher import Dispatcher
from headrace.server.engine_life import GRACE_SECONDS, EngineLife
from headrace.server.errors import ApiError, unavailable
from headrace.server.lateness import LatenessLog
from headrace.server.launcher import EngineLauncher
from headrace.server.metrics import ServerMetrics
from headrace.server.model_text import ModelText
from headrace.server.options import ServerOptions, flag_of
from headrace.server.restarts import WINDOW_SECONDS, RestartBudget
from headrace.server.submission import Submission
from headrace.text.stream import RequestStream
from headrace.wire.messages import (
    AddRequest,
    Command,
    EngineStats,
    Event,
    Ready,
    RequestFailed,
    ResetPrefixCache,
    StepOutput,
)

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""How often it is looked whether the engine hangs."""

MIN_RESTART_SECONDS = 60.0
RESTART_FACTOR = 10.0
"""An engine that is started again may load as long as this, or so many times as long as it took before."""

_log = logging.getLogger(__name__)


class EngineClient:
    """The one connection to the engine. All methods belong to the event loop's thread."""

    def __init__(self, launcher: EngineLauncher, options: ServerOptions | None = None) -> None:
        self._launcher = launcher
        self._options = options or ServerOptions()
        self.metrics = ServerMetrics()
        self._dispatcher = Dispatcher(self._send, self.metrics)
        self._life = EngineLife(launcher, self._on_event, self._on_end)
        self._restarts = RestartBudget(self._options.max_engine_restarts)
        self._text: ModelText | None = None
        self._outage: HeadraceError | None = None
        self._lateness = LatenessLog()
        self._start_seconds = 1.0
        self._loading_seconds = 0.0
        self._stopping = False
        self._draining = False
        self.admission = Admission(self._options, self.metrics)
        self.loading = False
        """Whether `load` runs, which may be long after the server has been stopped."""
        self.stats = EngineStats()

    async def start(self) -> None:
        """Start the engine and load the model's text side. Returns when ready; raises why it cannot be."""
        began = time.monotonic()
        if self._life.start():
            try:
                self.loading = True
                self._text = await _on_daemon_thread(self._load)
            except HeadraceError as error:
                self._life.end(error)
            except OSError as error:
                what, fix = f"The model could not be loaded: {error}", "See what the machine is short of"
                self._life.end(HeadraceError(what, fix=fix, kind=ErrorKind.INTERNAL))
        await self._life.settled()
        if self._life.failure is not None:
            raise self._life.failure
        self._start_seconds = time.monotonic() - began

    async def keep_running(self) -> None:
        """Start the engine again whenever it is lost. Raises why, once it may not be, and returns if all is ending."""
        hung_before = False
        while True:
            if await self._life.ended(LOOK_SECONDS):
                if self._draining or self._stopping:
                    return
                await self._start_again()
            self._life.progress.look(time.monotonic())
            self._lateness.look(self.seconds_late)
            hung = self._hung_seconds()
            if hung and hung_before:  # not at the first look: the whole machine may have paused, and go on now
                what = f"The engine made no progress for {hung:.0f} s"
                self._life.end(HeadraceError(what, fix="Send the request again", kind=ErrorKind.UNAVAILABLE))
            hung_before = hung > 0.0

    def drain(self) -> None:
        """The server is about to stop. What it has taken is finished; it is not ready for more."""
        self._draining = True

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End the engine process and wait until it is gone. Open requests fail."""
        self._stopping = True
        self.fail_open_requests(stopping())
        await self._life.close(grace_seconds)

    def kill(self) -> None:
        """End the engine process now, without waiting for anything."""
        self._life.kill()

    @property
    def alive(self) -> bool:
        """Whether the engine process lives and has not reported a failure."""
        return self._outage is None and not self._stopping and self._life.alive

    @property
    def ready(self) -> bool:
        """Whether requests can be taken now."""
        return self.alive and self._text is not None and self._life.ready is not None and not self.seconds_late

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""
        return self._draining or self._stopping

    @property
    def seconds_late(self) -> float:
        """For how long the engine has made no progress, if it has work and that is too long; else 0.0."""
        return self._seconds_late(0.0)

    @property
    def text(self) -> ModelText:
        """The model's tokenizer and defaults. Raises a 503 while there is none."""
        if self._text is None:
            raise self.refusal()
        return self._text

    @property
    def limits(self) -> Ready:
        """What the engine said of itself when it became ready. Raises a 503 before."""
        self.check_ready()
        assert self._life.ready is not None
        return self._life.ready

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
        if not self.num_open_sequences:
            self._life.progress.work_began(time.monotonic())
        return self._dispatcher.submit(requests)

    def reset_prefix_cache(self) -> None:
        """Have the engine forget every cached prefix that no running sequence holds."""
        self.check_ready()
        self._send(ResetPrefixCache())

    def fail_open_requests(self, error: HeadraceError) -> None:
        """End every open request with `error`."""
        self._dispatcher.fail_all(error)

    def refusal(self) -> HeadraceError:
        """The 503 that says why requests cannot be taken now."""
        if self._stopping:
            return stopping()
        if (outage := self._outage) is not None:  # whoever's fault it was, it is not this request's
            seconds = max(1, math.ceil(self._start_seconds))
            return unavailable(outage.what, "Send the request again in a moment", retry_after_seconds=seconds)
        if self._life.ready is not None and not self._life.alive:
            return unavailable("The engine has stopped", "Send the request again", retry_after_seconds=1)
        if late := self.seconds_late:
            sequences = "sequence" if self.num_open_sequences == 1 else "sequences"
            what = f"The engine has made no progress for {late:.0f} s, with {self.num_open_sequences} {sequences} open"
            fix = "Wait: it is started again if it does not recover within --engine-hang-timeout"
            return unavailable(what, fix, retry_after_seconds=5)
        fix = "Try again in a moment; /ready tells when"
        return unavailable("The model is still loading", fix, retry_after_seconds=2)

    def _hung_seconds(self) -> float:
        """For how long the engine has made no progress, if it is to be given up for that; else 0.0."""
        timeout = self._options.engine_hang_timeout_seconds
        return self._seconds_late(timeout) if timeout else 0.0

    def _seconds_late(self, beyond: float) -> float:
        if not self.alive or self._life.ready is None:
            return 0.0
        has_work = self.num_open_sequences > 0
        return self._life.progress.seconds_late(time.monotonic(), has_work=has_work, beyond=beyond)

    def _load(self) -> ModelText:
        try:
            return self._launcher.load()
        finally:
            self.loading = False

    def _send(self, command: Command) -> None:
        self._life.send(command)

    def _on_event(self, event: Event) -> None:
        match event:
            case StepOutput():
                self._dispatcher.on_step(event)
                self.admission.on_step(event)
            case RequestFailed():
                self._dispatcher.on_request_failed(event)
            case EngineStats():
                self.stats = event
                self.metrics.on_stats(event)
            case Ready():
                self._outage = None
                self._loading_seconds = max(self._loading_seconds, sum(event.startup_seconds.values()))
                self.metrics.on_ready(event)
                self.admission.start_engine(event.max_num_batched_tokens)

    def _on_end(self, error: HeadraceError) -> None:
        self._outage = error
        self.stats = EngineStats()
        self.fail_open_requests(self.refusal())

    async def _start_again(self) -> None:
        """Let go of the engine that is lost, and start another. What it fails with, it is lost with."""
        why, lost_at = self._life.failure, time.monotonic()
        assert why is not None
        pause = None if _is_hopeless(why) else self._restarts.take(time.monotonic())
        if pause is None:
            raise self._given_up(why)
        _log.warning("%s. It is started again.", why.what)
        await self._life.close()  # a process that has said why it ends may still be about to
        await asyncio.sleep(pause)
        self._life = EngineLife(self._launcher, self._on_event, self._on_end)
        self._lateness = LatenessLog()
        began = time.monotonic()
        if self._life.start():
            self._launcher.reload()
        await self._life.settled(self._restart_seconds())
        self._start_seconds = time.monotonic() - began
        if self._life.failure is None:
            _log.warning("Ready again after %.0f s.", time.monotonic() - lost_at)

    def _restart_seconds(self) -> float:
        """How long an engine that is started again may load: now nothing is downloaded any more."""
        return max(MIN_RESTART_SECONDS, RESTART_FACTOR * self._loading_seconds)

    def _given_up(self, why: HeadraceError) -> HeadraceError:
        limit = self._options.max_engine_restarts
        times = f"{limit} restarts within {WINDOW_SECONDS / 60:g} minutes are allowed"
        rule = why.rule if _is_hopeless(why) else f"{flag_of('max_engine_restarts')} is {limit}: {times}"
        fix = "The log above says what it ended with each time"
        return HeadraceError(why.what, rule=rule, fix=fix, kind=ErrorKind.INTERNAL)


def stopping() -> ApiError:
    """The 503 for what is open, or comes, while the server stops."""
    return unavailable("The server is stopping", "Send the request again", retry_after_seconds=1)


def _is_hopeless(failure: HeadraceError) -> bool:
    """Whether it is the configuration's fault, which no restart changes."""
    return failure.kind.value < ErrorKind.INTERNAL.value


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
