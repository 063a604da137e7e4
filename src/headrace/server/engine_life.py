"""One life of the engine: from the start of a process to its end, with a channel and a heartbeat of its own.

Nothing of it is used again: what is sent in vain to a dead engine can never reach the next one.
"""

import asyncio
from collections.abc import Callable

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server.launcher import EngineLauncher
from headrace.server.progress import Progress
from headrace.wire.channel import EngineChannel
from headrace.wire.messages import Command, EngineFailed, Event, Ready, Shutdown

LAST_WORD_SECONDS = 0.2
"""How long an engine's own reason for ending may take to arrive after the process is gone."""

GRACE_SECONDS = 5.0
"""How long a process may take to end by itself."""


class EngineLife:
    """One engine process. `on_event` gets what it sends, `on_end` why it is lost; both in the event loop's thread."""

    def __init__(
        self, launcher: EngineLauncher, on_event: Callable[[Event], None], on_end: Callable[[HeadraceError], None]
    ) -> None:
        self._launcher = launcher
        self._on_event = on_event
        self._on_end = on_end
        self._channel = EngineChannel()
        self._closed = False
        self._settled = asyncio.Event()
        self._ended = asyncio.Event()
        self.progress = Progress(self._channel.heartbeat)
        self.ready: Ready | None = None
        self.failure: HeadraceError | None = None

    def start(self) -> bool:
        """Start the process, which then waits to be told what to load. Whether it could be started."""
        loop = asyncio.get_running_loop()
        self._channel.listen(self._take)

        def on_exit(reason: str) -> None:
            loop.call_soon_threadsafe(self._on_exit, reason)

        try:
            self._launcher.start(self._channel.address, on_exit)
        except OSError as error:  # no memory, no processes: that may pass
            what = f"The engine process could not be started: {error}"
            self.end(HeadraceError(what, fix="See what the machine is short of", kind=ErrorKind.UNAVAILABLE))
        return self.failure is None

    async def settled(self, timeout_seconds: float | None = None) -> None:
        """Wait until it is ready, or has failed to become so: also by taking longer than `timeout_seconds`."""
        try:
            await asyncio.wait_for(self._settled.wait(), timeout_seconds)
        except TimeoutError:
            what = f"The engine was not ready within {timeout_seconds:.0f} s"
            self.end(HeadraceError(what, fix="See what the machine is short of", kind=ErrorKind.UNAVAILABLE))

    async def ended(self, timeout_seconds: float) -> bool:
        """Wait for the end, at most so long. Whether it has come."""
        try:
            await asyncio.wait_for(self._ended.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True

    @property
    def alive(self) -> bool:
        """Whether the process runs and has not reported a failure."""
        return self.failure is None and self._launcher.alive()

    def send(self, command: Command) -> None:
        """Send without waiting."""
        if not self._closed:
            self._channel.send(command)

    def end(self, error: HeadraceError) -> None:
        """The engine is lost. The first error stays: the process ends after it has said why."""
        if self.failure is None:
            self.failure = error
            self._on_end(error)
            self._settled.set()
            self._ended.set()

    async def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End the process, wait until it is gone, and let go of the channel."""
        self.send(Shutdown())
        await asyncio.to_thread(self._launcher.stop, grace_seconds)
        self._closed = True
        self._channel.close()

    def kill(self) -> None:
        """End the process now, without waiting for anything."""
        self._launcher.stop(0.0)
        self._channel.remove_directory()

    def _take(self, event: Event) -> None:
        if self.failure is not None:  # it is given up, though it may still say something
            return
        if isinstance(event, EngineFailed):
            kind = ErrorKind(event.status)
            self.end(HeadraceError(event.what, rule=event.rule, fix=event.fix, param=event.param, kind=kind))
            return
        if isinstance(event, Ready):
            self.ready = event
            self._channel.remove_directory()  # both ends are connected, and no one else can be from now on
        self._on_event(event)
        if self.ready is not None:
            self._settled.set()

    def _on_exit(self, reason: str) -> None:
        """The process may have sent its own reason just before it ended: that is on its way, and tells more."""
        what = f"The engine process ended: {reason}"
        fix = "Send the request again" if self.ready else "What it said itself, if anything, is in the log above"
        error = HeadraceError(what, fix=fix, kind=ErrorKind.UNAVAILABLE)
        asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self.end, error)
