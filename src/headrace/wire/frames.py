"""Frames over a stream socket: each is its length in four bytes and its payload, however the stream is cut in between.

Nothing here waits unless it is asked to: what the kernel does not take stays in memory, in order and without a limit,
because what is in flight is bounded by admission.
"""

import math
import select
import socket
import struct
from collections.abc import Iterator

RECEIVE_BYTES = 65_536
"""How much is taken from the socket at once: a reader that has other things to do is not kept longer than that."""

SEND_BUFFER_BYTES = 4 << 20
"""How much the kernel is asked to hold of what the other end has not read; it gives what it may."""

_LENGTH = struct.Struct("<I")


class FrameSocket:
    """A connected socket that carries frames both ways. It belongs to one thread."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._socket = connected
        self._unsent = bytearray()
        self._received = bytearray()
        self.ended = False
        """Whether the other end is gone, and all that it sent has been received."""

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""
        return self._socket.fileno()

    @property
    def blocked(self) -> bool:
        """Whether something waits until the kernel takes more."""
        return bool(self._unsent)

    @property
    def has_frame(self) -> bool:
        """Whether a whole frame has been received and not been taken."""
        return len(self._received) >= self._frame_end()

    def send(self, payload: bytes) -> bool:
        """Send a frame. False if the other end is gone."""
        self._unsent += _LENGTH.pack(len(payload))
        self._unsent += payload
        return self.flush()

    def flush(self) -> bool:
        """Send as much of what waits as the kernel takes. False if the other end is gone."""
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return True
        except ConnectionError:
            self._unsent.clear()
            return False
        del self._unsent[:sent]
        return True

    def receive(self) -> bool:
        """Receive at most `RECEIVE_BYTES` of what is there. Whether there may be more."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except ConnectionError:  # it ended without reading all that we sent
            data = b""
        if not data:
            self.ended = True
            self._unsent.clear()
        self._received += data
        return len(data) == RECEIVE_BYTES

    def frames(self) -> Iterator[bytearray]:
        """Take the whole frames that have been received, one by one."""
        while self.has_frame:
            end = self._frame_end()
            payload = self._received[_LENGTH.size : end]
            del self._received[:end]
            yield payload

    def attend(self, timeout_seconds: float) -> bool:
        """Sleep until something can be received or, if something waits, sent, and do it. False if neither came."""
        poll = select.poll()
        if not self.ended:  # a socket whose other end is gone would wake us all the time
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if not poll.poll(max(0, math.ceil(timeout_seconds * 1_000))):
            return False
        if self._unsent:
            self.flush()
        self.receive()
        return True

    def close(self) -> None:
        """Close the socket; closing twice is fine. What waits, to be sent or to be taken, is lost."""
        self._unsent.clear()
        self._received.clear()
        self._socket.close()

    def _frame_end(self) -> int:
        """Where the first frame ends in what has been received, as far as that is known."""
        if len(self._received) < _LENGTH.size:
            return _LENGTH.size
        return _LENGTH.size + int(_LENGTH.unpack_from(self._received)[0])
