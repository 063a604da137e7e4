"""The server's side of the engine process: requests go out, and each row that comes back goes to its stream.

It owns the truth about the engine (starting, ready, failed) and the table from sequence uid to stream. Every
submitted request ends: finished, aborted by its reader, or failed with an error that says why.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.outputs import TokenLogprobs
from headrace.server.errors import unavailable
from headrace.server.launcher import EngineLauncher
from headrace.server.model_text import ModelText
from headrace.server.submission import Submission
from headrace.text.stream import RequestStream
from headrace.wire.channel import EngineChannel
from headrace.wire.messages import (
    FINISH_REASONS,
    AbortRequests,
    AddRequest,
    EngineFailed,
    EngineStats,
    Event,
    Ready,
    RequestFailed,
    Shutdown,
    StepOutput,
)

RETRY_WHILE_LOADING_SECONDS = 2
LAST_WORD_SECONDS = 0.2


class _Route(NamedTuple):
    """Where the rows of one sequence go: the stream (at `position` in its submission), and which of its n it is."""

    submission: Submission
    stream: RequestStream
    position: int
    number: int


class EngineClient:
    """The one connection to the engine. All methods belong to the event loop's thread."""

    def __init__(self, launcher: EngineLauncher) -> None:
        self._launcher = launcher
        self._channel = EngineChannel()
        self._routes: dict[int, _Route] = {}
        self._uids = itertools.count(1)
        self._text: ModelText | None = None
        self._ready: Ready | None = None
        self._stopping = False
        self.failure: HeadraceError | None = None
        self.stats = EngineStats()
        self.settled = asyncio.Event()
        """Set once the engine is ready or has failed."""

    async def start(self) -> None:
        """Start the engine and load the model's text side. Returns when ready; raises why it cannot be."""
        loop = asyncio.get_running_loop()
        self._channel.listen(self._on_event)

        def on_exit(reason: str) -> None:
            loop.call_soon_threadsafe(self._on_exit, reason)

        self._launcher.start(self._channel.commands_address, self._channel.events_address, on_exit)
        try:
            self._text = await asyncio.to_thread(self._launcher.load)
        except HeadraceError as error:
            self._fail(error)
        else:
            self._settle()
        await self.settled.wait()
        if self.failure is not None:
            raise self.failure

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """End the engine process and wait until it is gone. Open requests fail."""
        self.fail_open_requests(unavailable("The server is stopping", "Send the request again", retry_after_seconds=1))
        self._stopping = True
        self._channel.send(Shutdown())
        await asyncio.to_thread(self._launcher.stop, grace_seconds)
        self._channel.close()

    def kill(self) -> None:
        """End the engine process now, without waiting for anything."""
        self._launcher.stop(0.0)
        self._channel.remove_directory()

    @property
    def alive(self) -> bool:
        """Whether the engine process lives and has not reported a failure."""
        return self.failure is None and not self._stopping and self._launcher.alive()

    @property
    def ready(self) -> bool:
        """Whether requests can be taken now."""
        return self.alive and self._text is not None and self._ready is not None

    @property
    def text(self) -> ModelText:
        """The model's tokenizer and defaults. Raises a 503 while there is none."""
        self.check_ready()
        assert self._text is not None
        return self._text

    @property
    def limits(self) -> Ready:
        """What the engine said of itself when it became ready. Raises a 503 before."""
        self.check_ready()
        assert self._ready is not None
        return self._ready

    @property
    def num_open_sequences(self) -> int:
        """How many sequences the engine works on for this server."""
        return len(self._routes)

    def check_ready(self) -> None:
        """Raise a 503 that says why, unless requests can be taken now."""
        if self.ready:
            return
        if self.failure is not None:
            raise self.failure
        if self.settled.is_set():
            raise unavailable("The engine has stopped", "Try again", retry_after_seconds=RETRY_WHILE_LOADING_SECONDS)
        fix = "Try again in a moment; /ready tells when"
        raise unavailable("The model is still loading", fix, retry_after_seconds=RETRY_WHILE_LOADING_SECONDS)

    def new_uids(self, count: int) -> list[int]:
        """Names for `count` sequences, never used before."""
        return list(itertools.islice(self._uids, count))

    def submit(self, requests: Sequence[tuple[AddRequest, RequestStream]]) -> Submission:
        """Send requests that are answered together. Raises a 503 if the engine cannot take them."""
        self.check_ready()
        submission = Submission([stream for _, stream in requests], self._abort)
        for position, (add, stream) in enumerate(requests):
            for number, uid in enumerate(add.uids):
                self._routes[uid] = _Route(submission, stream, position, number)
                submission.uids.add(uid)
            self._channel.send(add)
        return submission

    def fail_open_requests(self, error: HeadraceError) -> None:
        """End every open request with `error`."""
        submissions = {route.submission for route in self._routes.values()}
        open_uids = list(self._routes)
        self._routes.clear()
        for submission in submissions:
            submission.fail(error)
        if open_uids:
            self._channel.send(AbortRequests(open_uids))

    def _abort(self, uids: list[int]) -> None:
        """Give up these sequences, as far as they have not ended."""
        running = [uid for uid in uids if self._routes.pop(uid, None) is not None]
        if running:
            self._channel.send(AbortRequests(running))

    def _on_event(self, event: Event) -> None:
        match event:
            case StepOutput():
                self._on_step(event)
            case RequestFailed():
                self._on_request_failed(event)
            case EngineStats():
                self.stats = event
            case Ready():
                self._ready = event
                self._settle()
            case EngineFailed():
                error = HeadraceError(event.what, rule=event.rule, fix=event.fix, kind=ErrorKind.UNAVAILABLE)
                self._fail(error)

    def _on_step(self, step: StepOutput) -> None:
        now = time.monotonic()
        stopped = []
        for row, (uid, token_id, finish, stop_token) in enumerate(step.rows()):
            route = self._routes.get(uid)
            if route is None:  # aborted while this row was on its way
                continue
            matched = route.stream.add(
                route.number,
                token_id,
                FINISH_REASONS[finish],
                None if stop_token < 0 else stop_token,
                _at(step.logprobs, row),
                cached_tokens=step.cached_tokens.get(uid),
                prompt_logprobs=step.prompt_logprobs.get(uid),
                now=now,
            )
            if matched and not finish:
                stopped.append(uid)
            elif finish:
                del self._routes[uid]
                route.submission.uids.discard(uid)
            route.submission.touch(route.position)
        self._abort(stopped)

    def _on_request_failed(self, event: RequestFailed) -> None:
        kind = ErrorKind(event.status)
        error = HeadraceError(event.what, rule=event.rule, fix=event.fix, param=event.param, kind=kind)
        for submission in {self._routes[uid].submission for uid in event.uids if uid in self._routes}:
            for uid in event.uids:
                self._routes.pop(uid, None)
                submission.uids.discard(uid)
            submission.fail(error)

    def _on_exit(self, reason: str) -> None:
        """The process may have sent its own reason just before it ended: that is on its way, and tells more."""
        if not self._stopping:
            what = f"The engine process ended: {reason}"
            error = HeadraceError(what, fix="Start the server again", kind=ErrorKind.UNAVAILABLE)
            asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self._fail, error)

    def _fail(self, error: HeadraceError) -> None:
        """The engine is lost. The first error stays: the process ends after it has said why."""
        if self.failure is None:
            self.failure = error
        self.fail_open_requests(self.failure)
        self.settled.set()

    def _settle(self) -> None:
        if self._text is not None and self._ready is not None:
            self.settled.set()


def _at(logprobs: list[TokenLogprobs | None] | None, row: int) -> TokenLogprobs | None:
    return None if logprobs is None else logprobs[row]
