"""Which of the engine's sequences belongs to which stream: each row that comes back goes to its own.

Every submission that was opened ends: finished, aborted by its reader, or failed with an error.
"""

import itertools
import logging
import time
from collections.abc import Callable, Sequence

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.server.metrics import ServerMetrics
from headrace.server.open_sequence import OpenRequest, OpenSequence
from headrace.server.submission import Outbox, Submission
from headrace.text.stream import RequestStream
from headrace.wire.messages import FINISH_REASONS, AbortRequests, AddRequest, Command, RequestFailed, StepOutput

_log = logging.getLogger(__name__)


class Dispatcher:
    """The table from uid to sequence. `send` sends to the engine; all methods belong to one thread."""

    def __init__(self, send: Callable[[Command], object], metrics: ServerMetrics) -> None:
        self._send = send
        self._metrics = metrics
        self._open: dict[int, OpenSequence] = {}
        self._uids = itertools.count(1)

    @property
    def num_open_sequences(self) -> int:
        """How many sequences have not ended."""
        return len(self._open)

    def new_uids(self, count: int) -> list[int]:
        """Names for `count` sequences, never used before."""
        return list(itertools.islice(self._uids, count))

    def submit(self, requests: Sequence[tuple[AddRequest, RequestStream]]) -> Submission:
        """Send requests that are answered together. If one cannot be sent, those before it are given up."""
        submission = Submission([stream for _, stream in requests], self.abort)
        try:
            for position, (add, stream) in enumerate(requests):
                self._send(add)
                request = OpenRequest(add, stream)
                self._metrics.on_submit(request.prompt_tokens)
                for number, uid in enumerate(add.uids):
                    sequence = OpenSequence(submission, request, stream, position, number)
                    self._open[uid] = submission.sequences[uid] = sequence
        except BaseException:
            submission.abort()
            raise
        return submission

    def abort(self, uids: Sequence[int], reason: str = "abort") -> None:
        """Give up these sequences, as far as they have not ended."""
        running = [uid for uid in uids if self._close(uid, reason) is not None]
        if running:
            self._send(AbortRequests(running))

    def fail_all(self, error: HeadraceError) -> None:
        """End every open submission with `error`."""
        submissions = {sequence.submission for sequence in self._open.values()}
        self.abort(list(self._open), "error")
        for submission in submissions:
            submission.fail(error)

    def on_step(self, step: StepOutput) -> None:
        """Give each row to its stream, then let the readers know."""
        now = time.monotonic()
        gaps: list[float] = []
        outbox: Outbox = []
        news: dict[Submission, None] = {}
        for row, (uid, token_id, finish, stop_token) in enumerate(step.rows()):
            sequence = self._open.get(uid)
            if sequence is None:  # aborted while this row was on its way
                continue
            if token_id >= 0:
                if sequence.num_tokens:
                    gaps.append(now - sequence.last_token)
                else:
                    self._begin(sequence, uid, step, now)
                sequence.last_token = now
                sequence.num_tokens += 1
            try:
                if finish or sequence.push is None or not sequence.push(token_id, outbox):
                    news[sequence.submission] = None
                    self._take(sequence, uid, step, row, (token_id, finish, stop_token), now)
            except Exception:
                self._give_up(sequence.submission)
        for connection, data in outbox:
            connection.write(data)
        for submission in news:
            try:
                submission.notify()
            except Exception:
                self._give_up(submission)
        self._metrics.on_step(step.num_tokens)
        self._metrics.on_next_tokens(gaps)

    def on_request_failed(self, event: RequestFailed) -> None:
        """End the submission of a request that the engine refused; what else it holds is given up by its reader."""
        kind = ErrorKind(event.status)
        error = HeadraceError(event.what, rule=event.rule, fix=event.fix, param=event.param, kind=kind)
        for sequence in [self._close(uid, "error") for uid in event.uids]:
            if sequence is not None:
                sequence.submission.fail(error)

    def _begin(self, sequence: OpenSequence, uid: int, step: StepOutput, now: float) -> None:
        queue_seconds, cached = step.queue_seconds.get(uid, 0.0), step.cached_tokens.get(uid, 0)
        sequence.begin(now, queue_seconds, cached, self._metrics)

    def _take(
        self, sequence: OpenSequence, uid: int, step: StepOutput, row: int, values: tuple[int, int, int], now: float
    ) -> None:
        """Add a row to its stream: (token id, finish, stop token) and what came with it."""
        token_id, finish, stop_token = values
        logprobs = None if step.logprobs is None else step.logprobs[row]
        matched = sequence.stream.add(
            sequence.number,
            token_id,
            FINISH_REASONS[finish],
            None if stop_token < 0 else stop_token,
            logprobs,
            cached_tokens=step.cached_tokens.get(uid),
            prompt_logprobs=step.prompt_logprobs.get(uid),
            now=now,
        )
        sequence.submission.touch(sequence.position, 1 + len(logprobs or ()))
        if finish:
            self._close(uid, FINISH_REASONS[finish] or "", step.preemptions.get(uid, 0))
        elif matched:
            self.abort([uid], "stop")

    def _give_up(self, submission: Submission) -> None:
        """One answer could not be made, which says nothing of the others."""
        _log.exception("Unexpected error in an answer")
        self.abort(list(submission.sequences), "error")
        what = "The server met an error that it did not expect"
        submission.fail(HeadraceError(what, fix="Its log says more", kind=ErrorKind.INTERNAL))

    def _close(self, uid: int, reason: str, preemptions: int = 0) -> OpenSequence | None:
        sequence = self._open.pop(uid, None)
        if sequence is not None:
            sequence.submission.sequences.pop(uid, None)
            sequence.end(reason, preemptions, self._metrics)
        return sequence
