"""Keeps an engine running: starts one, sees when it is lost or hangs, and starts the next, as often as is allowed."""

import asyncio
import logging
import time
from collections.abc import Callable

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server.daemon_thread import on_daemon_thread
from headrace.server.engine_life import EngineLife
from headrace.server.lateness import LatenessLog
from headrace.server.launcher import EngineLauncher
from headrace.server.model_text import ModelText
from headrace.server.options import ServerOptions, flag_of
from headrace.server.restarts import WINDOW_SECONDS, RestartBudget
from headrace.wire.messages import Command, Event, Ready

LOOK_SECONDS = 1.0
"""How often it is looked whether the engine hangs."""

MIN_RESTART_SECONDS = 60.0
RESTART_FACTOR = 10.0
"""An engine that is started again may load as long as this, or so many times as long as it took before."""

_log = logging.getLogger(__name__)


class EngineSupervisor:
    """One engine at a time. All methods belong to the event loop's thread.

    `on_event` gets what the engine sends, `on_lost` hears that one is lost, and `has_work` tells whether an engine
    that stands still has a reason to move. Whoever gave it work gives it again, or does not: nothing of that is kept.
    """

    def __init__(
        self,
        launcher: EngineLauncher,
        options: ServerOptions,
        on_event: Callable[[Event], None],
        on_lost: Callable[[], None],
        has_work: Callable[[], bool],
    ) -> None:
        self._launcher = launcher
        self._options = options
        self._on_event = on_event
        self._on_lost = on_lost
        self._has_work = has_work
        self._restarts = RestartBudget(options.max_engine_restarts)
        self._loading_seconds = 0.0
        self._begin_life()
        self.loading = False
        """Whether the model is being found and loaded, which may be long after the server has been stopped."""
        self.text: ModelText | None = None
        """The model's tokenizer and defaults, once they are loaded."""
        self.outage: HeadraceError | None = None
        """Why the last engine was lost, until the next one is ready."""
        self.start_seconds = 1.0
        """How long the last start took."""
        self.draining = False
        """Whether all is about to end: an engine that is lost now stays lost."""
        self.stopping = False
        """Whether the engine is being ended, or has been."""

    async def start(self) -> None:
        """Start the first engine and load the model's text side. Returns when ready; raises why it cannot be."""
        began = time.monotonic()
        if self._life.start():
            await self._load_model()
        await self._life.settled()
        if self._life.failure is not None:
            raise self._life.failure
        self.start_seconds = time.monotonic() - began

    async def keep_running(self) -> None:
        """Start the engine again whenever it is lost. Raises why, once it may not be, and returns if all is ending."""
        hung_before = False
        while True:
            if await self._life.ended(LOOK_SECONDS):
                if self.draining:
                    return
                await self._start_again()
            self._life.progress.look(time.monotonic())
            self._lateness.look(self.seconds_late())
            hung = self._hung_seconds()
            if hung and hung_before:  # not at the first look: the whole machine may have paused, and go on now
                what = f"The engine made no progress for {hung:.0f} s"
                self._life.end(HeadraceError(what, fix="Send the request again", kind=ErrorKind.UNAVAILABLE))
            hung_before = hung > 0.0

    def drain(self) -> None:
        """All is about to end."""
        self.draining = True

    async def stop(self, grace_seconds: float) -> None:
        """End the engine process, by force after `grace_seconds`, and wait until it is gone."""
        self.draining = self.stopping = True
        await self._life.close(grace_seconds)

    def kill(self) -> None:
        """End the engine process now, without waiting for anything."""
        self._life.kill()

    @property
    def alive(self) -> bool:
        """Whether the engine process lives and has not reported a failure."""
        return self.outage is None and not self.stopping and self._life.alive

    @property
    def takes_work(self) -> bool:
        """Whether requests can be sent now."""
        return self.text is not None and self._life.ready is not None and self.alive and not self._still(0.0)

    @property
    def stopped_by_itself(self) -> bool:
        """Whether the process of an engine that was ready is gone, which has not been told yet."""
        return self._life.ready is not None and not self._life.alive

    @property
    def ready(self) -> Ready | None:
        """What the engine said of itself when it became ready."""
        return self._life.ready

    def send(self, command: Command) -> None:
        """Send without waiting. What is sent to an engine that is lost never reaches the next one."""
        self._life.send(command)

    def work_began(self) -> None:
        """There was nothing to do, and now there is."""
        self._life.progress.work_began(time.monotonic())

    def seconds_late(self, beyond: float = 0.0) -> float:
        """For how long it has made no progress, if it has work and that is too long by more than `beyond`; else 0.0."""
        return self._still(beyond) if self.alive and self._life.ready is not None else 0.0

    def _still(self, beyond: float) -> float:
        """The same, of an engine that is alive and has been ready."""
        return self._life.progress.seconds_late(time.monotonic(), has_work=self._has_work(), beyond=beyond)

    def _hung_seconds(self) -> float:
        """For how long the engine has made no progress, if it is to be given up for that; else 0.0."""
        timeout = self._options.engine_hang_timeout_seconds
        return self.seconds_late(timeout) if timeout else 0.0

    def _begin_life(self) -> None:
        self._life = EngineLife(self._launcher, self._take, self._on_end)
        self._lateness = LatenessLog()

    async def _load_model(self) -> None:
        """Load the model. What that fails with, the engine is lost with."""
        try:
            self.loading = True
            self.text = await on_daemon_thread(self._load)
        except HeadraceError as error:
            self._life.end(error)
        except OSError as error:
            what, fix = f"The model could not be loaded: {error}", "See what the machine is short of"
            self._life.end(HeadraceError(what, fix=fix, kind=ErrorKind.INTERNAL))

    def _load(self) -> ModelText:
        try:
            return self._launcher.load()
        finally:
            self.loading = False

    def _take(self, event: Event) -> None:
        if isinstance(event, Ready):
            self.outage = None
            self._loading_seconds = max(self._loading_seconds, sum(event.startup_seconds.values()))
        self._on_event(event)

    def _on_end(self, error: HeadraceError) -> None:
        self.outage = error
        self._on_lost()

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
        self._begin_life()
        began = time.monotonic()
        if self._life.start():
            self._launcher.reload()
        await self._life.settled(max(MIN_RESTART_SECONDS, RESTART_FACTOR * self._loading_seconds))
        self.start_seconds = time.monotonic() - began
        if self._life.failure is None:
            _log.warning("Ready again after %.0f s.", time.monotonic() - lost_at)

    def _given_up(self, why: HeadraceError) -> HeadraceError:
        limit = self._options.max_engine_restarts
        times = f"{limit} restarts within {WINDOW_SECONDS / 60:g} minutes are allowed"
        rule = why.rule if _is_hopeless(why) else f"{flag_of('max_engine_restarts')} is {limit}: {times}"
        fix = "The log above says what it ended with each time"
        return HeadraceError(why.what, rule=rule, fix=fix, kind=ErrorKind.INTERNAL)


def _is_hopeless(failure: HeadraceError) -> bool:
    """Whether it is the configuration's fault, which no restart changes."""
    return failure.kind.value < ErrorKind.INTERNAL.value
