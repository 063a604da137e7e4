"""The one hop between the HTTP process and the engine process: a connection over a Unix socket.

The front owns the directory that the socket lives in (mode 0700, so that no other user can talk to the engine) and
listens until the engine has connected. One frame is one message. Neither side ever waits for the other in `send`, and
no thread stands between: a message costs one system call a side. Beside the socket is the file in which the engine
shows that it moves.
"""

import asyncio
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from headrace.wire.frames import FrameSocket
from headrace.wire.heartbeat import FILE_NAME, Heartbeat
from headrace.wire.messages import Command, Event, decode_command, decode_event, encode

LAST_WORD_SECONDS = 1.0
"""How long a closing engine waits until its last event (which may say why it ends) has left."""


class EngineChannel:
    """The front's end, for one asyncio loop: commands go out, events are handed to a callback as they arrive."""

    def __init__(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="headrace-"))
        self.address = str(directory / "socket")
        self.heartbeat = Heartbeat(directory / FILE_NAME, create=True)
        self._directory = directory
        self._connection: FrameSocket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(self.address)
        self._listener.listen(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deliver: Callable[[Event], None] = _drop

    def listen(self, deliver: Callable[[Event], None]) -> None:
        """From now on call `deliver` with each event, in the running loop."""
        self._loop, self._deliver = asyncio.get_running_loop(), deliver
        if self._connection is None:
            self._loop.add_reader(self._listener.fileno(), self._accept)
        else:
            self._loop.add_reader(self._connection.fileno(), self._read, self._connection)

    def send(self, command: Command) -> bool:
        """Send without waiting; what the engine has no room for, the loop sends later. False if there is no engine."""
        connection = self._connection or self._accept()
        if connection is None or not connection.send(encode(command)):
            return False
        if connection.blocked and self._loop is not None:
            self._loop.add_writer(connection.fileno(), self._write, connection)
        return True

    def close(self) -> None:
        """Close socket and heartbeat, and remove the directory; closing twice is fine."""
        for end in (self._listener, self._connection):
            if end is not None:
                self._forget(end.fileno())
                end.close()
        self.heartbeat.close()
        self.remove_directory()

    def remove_directory(self) -> None:
        """Remove the socket's directory. A channel whose ends are connected goes on working without it."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accept(self) -> FrameSocket | None:
        """The connection with the engine, if it has connected. Nobody else can from then on."""
        try:
            connected, _ = self._listener.accept()
        except OSError:  # nobody is there, or the channel is closed
            return None
        self._forget(self._listener.fileno())
        self._listener.close()
        self._connection = FrameSocket(connected)
        if self._loop is not None:
            self._loop.add_reader(connected.fileno(), self._read, self._connection)
        return self._connection

    def _read(self, connection: FrameSocket) -> None:
        """Deliver what is there, as far as it fits in one turn of the loop, which comes back if more is."""
        connection.receive()
        if connection.ended:
            self._forget(connection.fileno())
        for frame in connection.frames():
            self._deliver(decode_event(frame))

    def _write(self, connection: FrameSocket) -> None:
        connection.flush()
        if not connection.blocked and self._loop is not None:
            self._loop.remove_writer(connection.fileno())

    def _forget(self, descriptor: int) -> None:
        if self._loop is not None and descriptor >= 0:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)


class WorkerChannel:
    """The engine's end, for its one thread. What the front has no room for is sent during the calls that follow."""

    def __init__(self, address: str) -> None:
        self.heartbeat = Heartbeat(Path(address).with_name(FILE_NAME))
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.connect(address)
        self._connection = FrameSocket(connected)

    def drain(self) -> list[Command]:
        """Every command that has arrived, without waiting."""
        connection = self._connection
        if connection.blocked:
            connection.flush()
        while connection.receive():
            continue
        return [decode_command(frame) for frame in connection.frames()]

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until a command is there. False if none came in time."""
        deadline = time.monotonic() + timeout_seconds
        while not self._connection.has_frame:
            if not self._connection.attend(deadline - time.monotonic()):
                return False
        return True

    def send(self, event: Event) -> None:
        """Send without waiting."""
        self._connection.send(encode(event))

    def close(self) -> None:
        """Close socket and heartbeat, giving the last event a moment to leave; closing twice is fine."""
        deadline = time.monotonic() + LAST_WORD_SECONDS
        while self._connection.blocked and self._connection.attend(deadline - time.monotonic()):
            continue
        self._connection.close()
        self.heartbeat.close()


def _drop(event: Event) -> None:
    """Before `listen`, nothing is read."""
