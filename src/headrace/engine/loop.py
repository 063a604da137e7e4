"""The engine's thread: drain commands, step, hand on what was made, until told to stop.

One request's failure fails that request alone; a failed step fails every request, because the state of none of them
is known any more.
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
    Event,
    RequestFailed,
    ResetPrefixCache,
    Shutdown,
)

STATS_SECONDS = 0.5


class Inbox(Protocol):
    """Where commands come from."""

    def drain(self, *, wait: bool) -> list[Command]:
        """What has come; with `wait`, at least one command, unless a pause without any is over."""
        ...


class EngineLoop:
    """Runs `engine` on commands from `inbox`; every event goes to `send`."""

    def __init__(self, engine: Engine, inbox: Inbox, send: Callable[[Event], None]) -> None:
        self._engine = engine
        self._inbox = inbox
        self._send = send
        self._stats_sent = 0.0

    def run(self) -> bool:
        """Until a `Shutdown` comes (True), or a step fails (False; `EngineFailed` is then the last event)."""
        try:
            while self._obey(self._inbox.drain(wait=not self._engine.has_work)):
                if self._engine.has_work:
                    output = self._engine.step()
                    if output is not None and output.uids:
                        self._send(output)
                    self._tell_stats()
        except Exception as error:
            traceback.print_exc()
            what = f"A step of the engine failed with {type(error).__name__}: {error}"
            self._send(EngineFailed(what, fix="Restart it; the traceback above says where it failed"))
            return False
        return True

    def _tell_stats(self) -> None:
        """Send the counters now and then, and when there is nothing left to do."""
        now = time.monotonic()
        if now - self._stats_sent >= STATS_SECONDS or not self._engine.has_work:
            self._stats_sent = now
            self._send(self._engine.stats())

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
