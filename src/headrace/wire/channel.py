"""The one hop each way between the HTTP process and the engine process: two ZeroMQ PUSH/PULL pairs over Unix sockets.

The front owns the directory that the sockets live in (mode 0700, so that no other user can talk to the engine) and
binds both; the engine connects. One frame is one message. Neither side ever waits for the other in `send`. Beside the
sockets is the file in which the engine shows that it moves.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import zmq

from headrace.wire.heartbeat import FILE_NAME, Heartbeat
from headrace.wire.messages import Command, Event, decode_command, decode_event, encode

LAST_WORD_MILLISECONDS = 1_000
"""How long a closing engine waits until its last event (which may say why it ends) has left."""


class EngineChannel:
    """The front's end, for one asyncio loop: commands go out, events are handed to a callback as they arrive."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="headrace-")
        self.commands_address = f"ipc://{self._directory}/commands"
        self.events_address = f"ipc://{self._directory}/events"
        self.heartbeat = Heartbeat(Path(self._directory, FILE_NAME), create=True)
        self._context = zmq.Context(io_threads=1)
        self._commands = _socket(self._context, zmq.PUSH)
        self._events = _socket(self._context, zmq.PULL)
        self._commands.bind(self.commands_address)
        self._events.bind(self.events_address)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deliver: Callable[[Event], None] = _drop

    def listen(self, deliver: Callable[[Event], None]) -> None:
        """From now on call `deliver` with each event, in the running loop."""
        self._loop, self._deliver = asyncio.get_running_loop(), deliver
        self._loop.add_reader(self._events.fileno(), self._drain)
        self._loop.call_soon(self._drain)

    def send(self, command: Command) -> bool:
        """Send without waiting. False if there is no engine at the other end."""
        try:
            self._commands.send(encode(command), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        """Close both sockets and the heartbeat, and remove the directory; closing twice is fine."""
        if self._events.closed:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._events.fileno())
        self._context.destroy(linger=0)
        self.heartbeat.close()
        self.remove_directory()

    def remove_directory(self) -> None:
        """Remove the sockets' directory. A channel whose ends are connected goes on working without it."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _drain(self) -> None:
        """Deliver all that is there: the file descriptor tells of a change once, not of every message."""
        while not self._events.closed:
            try:
                frame = self._events.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._deliver(decode_event(frame))


class WorkerChannel:
    """The engine's end, for its one thread."""

    def __init__(self, commands_address: str, events_address: str) -> None:
        self.heartbeat = Heartbeat(Path(commands_address.removeprefix("ipc://")).with_name(FILE_NAME))
        self._context = zmq.Context(io_threads=1)
        self._commands = _socket(self._context, zmq.PULL)
        self._events = _socket(self._context, zmq.PUSH)
        self._commands.connect(commands_address)
        self._events.connect(events_address)

    def drain(self) -> list[Command]:
        """Every command that has arrived, without waiting."""
        commands: list[Command] = []
        while True:
            try:
                commands.append(decode_command(self._commands.recv(zmq.NOBLOCK)))
            except zmq.Again:
                return commands

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until a command is there. False if none came in time."""
        return bool(self._commands.poll(round(timeout_seconds * 1_000)))

    def send(self, event: Event) -> None:
        """Send without waiting."""
        self._events.send(encode(event), zmq.NOBLOCK)

    def close(self) -> None:
        """Close sockets and heartbeat, giving the last event a moment to leave; closing twice is fine."""
        self._context.destroy(linger=LAST_WORD_MILLISECONDS)
        self.heartbeat.close()


def _socket(context: "zmq.Context[zmq.Socket[bytes]]", kind: int) -> "zmq.Socket[bytes]":
    """A socket whose queues have no limit: what is in flight is bounded by admission, and a send must not block."""
    socket = context.socket(kind)
    socket.sndhwm = socket.rcvhwm = 0
    return socket


def _drop(event: Event) -> None:
    """Before `listen`, nothing is read."""
