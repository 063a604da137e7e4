"""A close that lets a client that still sends read why it should not."""

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_SECONDS = 5.0


class LingeringTransport:
    """A transport whose `close` may wait: a socket that is closed with unread data resets the connection.

    A client that still sends would then never see the answer that says why it should not. So our side is closed, and
    what comes is thrown away, until the client closes its own or `LINGER_SECONDS` are over.
    """

    def __init__(self, transport: asyncio.Transport, must_linger: Callable[[], bool]) -> None:
        self._transport = transport
        self._must_linger = must_linger
        self.write = transport.write
        self.lingering = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more will be sent."""
        return self.lingering or self._transport.is_closing()

    def close(self) -> None:
        """Send what is left, then close."""
        if self.is_closing() or not self._must_linger():
            self._transport.close()
            return
        self.lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)
