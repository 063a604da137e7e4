"""The engine process: `python -m headrace.engine.process ADDRESS`, started by the launcher.

It reads its `EngineConfig` as one line of JSON from standard input and then serves the commands that come through the
socket at that address, and sends events back. It ends when told to, when it fails, or when the other end of its
standard input closes.
"""

import contextlib
import gc
import importlib
import os
import signal
import sys
import threading
import traceback

import msgspec

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.wire.channel import WorkerChannel
from headrace.wire.liveness import watch_parent
from headrace.wire.messages import Command, EngineFailed

_POLL_SECONDS = 60.0


class _ChannelInbox:
    """The channel as the loop's inbox."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel

    def drain(self, *, wait: bool) -> list[Command]:
        """See `Inbox`."""
        if wait:
            self._channel.wait(_POLL_SECONDS)
        return self._channel.drain()


def main() -> int:
    """Serve until told to stop; the exit status is 0 only then. Torch is imported while the model is looked for."""
    channel = WorkerChannel(sys.argv[1])
    threading.Thread(target=_import_early, daemon=True).start()
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineConfig)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    watch_parent(lambda: os._exit(0))
    try:
        return _serve(config, channel)
    finally:
        channel.close()


def _import_early() -> None:
    with contextlib.suppress(Exception):  # `_serve` meets the same error, and tells it
        importlib.import_module("headrace.engine.build")


def _serve(config: EngineConfig, channel: WorkerChannel) -> int:
    try:
        from headrace.engine.build import load_engine
        from headrace.engine.loop import EngineLoop

        loaded = load_engine(config, with_tokenizer=False)
    except HeadraceError as error:
        channel.send(EngineFailed(error.what, error.rule, error.fix, error.param, error.kind.value))
        return 2
    except Exception as error:
        traceback.print_exc()
        channel.send(EngineFailed(f"The engine could not start: {type(error).__name__}: {error}"))
        return 1
    gc.collect()
    gc.freeze()  # what is there now stays: looking through it again and again would hold up steps
    channel.send(loaded.ready())
    loop = EngineLoop(loaded.engine, _ChannelInbox(channel), channel.send, channel.heartbeat.beat)
    return 0 if loop.run() else 1


if __name__ == "__main__":
    sys.exit(main())
