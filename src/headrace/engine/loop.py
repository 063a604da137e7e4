"""The engine's thread: drain commands, step, hand on what was made, until told to stop.

One request's failure fails that request alone; a failed step fails every request, because the state of none of them
is known any more. Each turn leaves a sign of life, so that whoever waits can tell a loop that computes from one that
hangs.
"""

import time
import traceback
from collections.abc import Callable
from typing import Protocol

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.engine.engine import Engine
from headrace.wire.messages import (
    AbortRequests,
    AddRequest,
    Command,
    EngineFailed,
    EngineStats,
    Event,
    RequestFailed,
    ResetPrefixCache,
    Shutdown,
)

STATS_SECONDS = 0.5
"""How often the counters are told while requests run."""

LOAD_SECONDS = 0.02
"""How soon they may be told again when requests came or went."""


class Inbox(Protocol):
    """Where commands come from."""

    def drain(self, *, wait: bool) -> list[Command]:
        """What has come; with `wait`, at least one command, unless a pause without any is over."""
        ...


class EngineLoop:
    """Runs `engine` on commands from `inbox`; every event goes to `send`.

    `beat` is called with the tokens of each step that begins, and with 0 when it is done.
    """

    def __init__(
        self,
        engine: Engine,
        inbox: Inbox,
        send: Callable[[Event], None],
        beat: Callable[[int], None] | None = None,
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._send = send
        self._beat = beat
        self._told: EngineStats | None = None
        self._told_load = engine.load
        self._told_at = 0.0

    def run(self) -> bool:
        """Until a `Shutdown` comes (True), or a step fails (False; `EngineFailed` is then the last event)."""
        try:
            self._tell_stats()
            while self._obey(self._inbox.drain(wait=not self._engine.has_work)):
                if self._engine.has_work:
                    self._step()
                self._tell_stats()
        except Exception as error:
            traceback.print_exc()
            what = f"A step of the engine failed with {type(error).__name__}: {error}"
            self._send(EngineFailed(what, fix="Restart it; the traceback above says where it failed"))
            return False
        return True

    def _step(self) -> None:
        output = self._engine.step(self._beat)
        if self._beat is not None:
            self._beat(0)
        if output is not None:
            self._send(output)

    def _tell_stats(self) -> None:
        """Send the counters at first, now and then, soon when requests came or went, at once when nothing is left."""
        now, load = time.monotonic(), self._engine.load
        pause = STATS_SECONDS if load == self._told_load else LOAD_SECONDS
        if self._engine.has_work and now - self._told_at < pause:
            return
        stats = self._engine.stats()
        if stats != self._told:
            self._told, self._told_load, self._told_at = stats, load, now
            self._send(stats)

    def _obey(self, commands: list[Command]) -> bool:
        """Carry out commands; False once one of them says to stop."""
        for command in commands:
            if isinstance(command, AddRequest):
                self._add(command)
            elif isinstance(command, AbortRequests):
                self._engine.abort(command.uids)
            elif isinstance(command, ResetPrefixCache):
                self._engine.reset_prefix_cache()
            elif isinstance(command, Shutdown):
                return False
        return True

    def _add(self, command: AddRequest) -> None:
        try:
            self._engine.add(command)
        except HeadraceError as error:
            self._send(RequestFailed(command.uids, error.what, error.rule, error.fix, error.param, error.kind.value))
        except Exception as error:
            traceback.print_exc()
            what = f"The request could not be started: {type(error).__name__}: {error}"
            self._send(RequestFailed(command.uids, what, status=ErrorKind.INTERNAL.value))
