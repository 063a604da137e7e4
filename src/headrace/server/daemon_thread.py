"""A thread that does not keep the process alive, for work that may take hours: a pool's thread would be waited for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

T = TypeVar("T")


async def on_daemon_thread(work: Callable[[], T]) -> T:
    """What `work` returns, or raises."""
    future: Future[T] = Future()

    def run() -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile: nobody asks any more
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

    threading.Thread(target=run, name="headrace-load", daemon=True).start()
    return await asyncio.wrap_future(future)
