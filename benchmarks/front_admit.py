"""CPU of taking one small chat request into the engine, in process: the application is called as uvicorn calls it.

The clock runs from the call until the application waits for the engine's first token: reading the body, parsing it,
checking it, admission, sampling parameters, and sending the request to the engine. The chat template and tokenization
are in between; what they take is taken off, and so is what reading the clock costs.
"""

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from front_parts import MODEL
from headrace.text.tokenizer import Tokenizer

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a headrace?"}]
BODY = {"model": MODEL, "messages": MESSAGES, "temperature": 0.7, "top_p": 0.9, "max_tokens": 100}

CLOCK_READS = 3
"""How many readings of the clock lie within what is measured: one for the whole, one for each of two text calls."""

App = Callable[[Any, Any, Any], Awaitable[None]]


async def measure_admission(app: App, tokenizer: Tokenizer, count: int) -> None:
    """Print the microseconds, as JSON: the median of `count` requests."""
    raw, clock = json.dumps(BODY).encode(), _TextClock(tokenizer)
    times = [_admit(app, raw, clock) for _ in range(count)]
    admit, text = (statistics.median(column) / 1_000 for column in zip(*times, strict=True))
    print(json.dumps({"admit_us": admit - CLOCK_READS * _clock_us(), "text_us": text}), flush=True)


def _clock_us(count: int = 1_000) -> float:
    began = time.thread_time_ns()
    for _ in range(count):
        time.thread_time_ns()
    return (time.thread_time_ns() - began) / count / 1_000


class _TextClock:
    """Adds up the time that a tokenizer's methods take."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.nanoseconds = 0
        for owner, name in ((tokenizer, "apply_chat_template"), (tokenizer, "encode")):
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: object, **options: object) -> object:
            began = time.thread_time_ns()
            result = method(*args, **options)
            self.nanoseconds += time.thread_time_ns() - began
            return result

        return timed


def _admit(app: App, raw: bytes, clock: _TextClock) -> tuple[int, int]:
    """(nanoseconds without text work, those of the text work). Then the client leaves."""
    request = app(_scope(raw), _body(raw), _ignore).__await__()
    clock.nanoseconds = 0
    began = time.thread_time_ns()
    next(request)
    nanoseconds = time.thread_time_ns() - began
    with contextlib.suppress(asyncio.CancelledError):
        request.throw(asyncio.CancelledError())
    return nanoseconds - clock.nanoseconds, clock.nanoseconds


def _scope(raw: bytes) -> dict[str, object]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions", "query_string": b"", "root_path": "",
        "headers": [
            (b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(raw)),
        ],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip


def _body(raw: bytes) -> Callable[[], Awaitable[dict[str, object]]]:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": raw, "more_body": False}

    return receive


async def _ignore(_: object) -> None:
    return
