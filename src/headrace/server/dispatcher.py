"""Which of the engine's sequences belongs to which stream: each row that comes back goes to its own.

Every submission that was opened ends: finished, aborted by its reader, or failed with an error.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.outputs import TokenLogprobs
from headrace.server.submission import Submission
from headrace.text.stream import RequestStream
from headrace.wire.messages import FINISH_REASONS, AbortRequests, AddRequest, Command, RequestFailed, StepOutput


class _Route(NamedTuple):
    """Where the rows of one sequence go: the stream (at `position` in its submission), and which of its n it is."""

    submission: Submission
    stream: RequestStream
    position: int
    number: int


class Dispatcher:
    """The table from sequence uid to stream. `send` sends to the engine; all methods belong to one thread."""

    def __init__(self, send: Callable[[Command], object]) -> None:
        self._send = send
        self._routes: dict[int, _Route] = {}
        self._uids = itertools.count(1)

    @property
    def num_open_sequences(self) -> int:
        """How many sequences have not ended."""
        return len(self._routes)

    def new_uids(self, count: int) -> list[int]:
        """Names for `count` sequences, never used before."""
        return list(itertools.islice(self._uids, count))

    def submit(self, requests: Sequence[tuple[AddRequest, RequestStream]]) -> Submission:
        """Send requests that are answered together. If one cannot be sent, those before it are given up."""
        submission = Submission([stream for _, stream in requests], self.abort)
        try:
            for position, (add, stream) in enumerate(requests):
                self._send(add)
                for number, uid in enumerate(add.uids):
                    self._routes[uid] = _Route(submission, stream, position, number)
                    submission.uids.add(uid)
        except BaseException:
            submission.abort()
            raise
        return submission

    def abort(self, uids: Sequence[int]) -> None:
        """Give up these sequences, as far as they have not ended."""
        running = [uid for uid in uids if self._close(uid) is not None]
        if running:
            self._send(AbortRequests(running))

    def fail_all(self, error: HeadraceError) -> None:
        """End every open submission with `error`."""
        submissions = {route.submission for route in self._routes.values()}
        self.abort(list(self._routes))
        for submission in submissions:
            submission.fail(error)

    def on_step(self, step: StepOutput) -> None:
        """Give each row to its stream, and wake the streams' readers."""
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
            if finish:
                self._close(uid)
            elif matched:
                stopped.append(uid)
            route.submission.touch(route.position)
        self.abort(stopped)

    def on_request_failed(self, event: RequestFailed) -> None:
        """End the submission of a request that the engine refused; what else it holds is given up by its reader."""
        kind = ErrorKind(event.status)
        error = HeadraceError(event.what, rule=event.rule, fix=event.fix, param=event.param, kind=kind)
        for route in [self._close(uid) for uid in event.uids]:
            if route is not None:
                route.submission.fail(error)

    def _close(self, uid: int) -> _Route | None:
        route = self._routes.pop(uid, None)
        if route is not None:
            route.submission.uids.discard(uid)
        return route


def _at(logprobs: list[TokenLogprobs | None] | None, row: int) -> TokenLogprobs | None:
    return None if logprobs is None else logprobs[row]
