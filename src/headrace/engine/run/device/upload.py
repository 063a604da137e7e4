"""Packs a plan into one buffer of pinned memory and sends it: all that the device is told of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from headrace.engine.run.device.layout import Ints, Layout
from headrace.engine.run.device.queue import DeviceQueue, Mark
from headrace.engine.run.device.rows import Pairs
from headrace.engine.sched.plan import PlannedRow
from headrace.kernels.gpu.prepare_step import NUM_TOKENS, NUM_UPDATES, TOKENS_AT, UPDATES_AT

UNREAD = -1


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What the host knows of an uploaded step: its tokens, the rows that sample, and each row's lengths, int32 [R]."""

    num_tokens: int
    sampling: list[PlannedRow]
    query_lens: Ints
    kv_lens: Ints

    @property
    def num_rows(self) -> int:
        """Rows of the step."""
        return len(self.query_lens)

    @property
    def decodes(self) -> bool:
        """Whether each row adds one token."""
        return self.num_tokens == self.num_rows


class Uploader:
    """Buffers in turn; `on_device` is where each arrives. One is filled again once it has been sent."""

    def __init__(self, layout: Layout, queue: DeviceQueue, num_buffers: int) -> None:
        self.on_device: Tensor = queue.pinned(layout.size).to(queue.device).zero_()
        self.max_pairs = layout.max_pairs
        self._layout = layout
        self._queue = queue
        self._buffers = [queue.pinned(layout.size).zero_() for _ in range(num_buffers)]
        self._sent: list[Mark | None] = [None] * num_buffers
        self._turn = 0

    def send_changes(self, pairs: Pairs) -> None:
        """Send changes of rows alone: a step without rows."""
        buffer = self._next()
        empty = np.zeros(0, np.int32)
        self._layout.write_rows(buffer, empty, np.zeros(1, np.int32), empty)
        self._layout.write_samples(buffer, empty, empty, empty)
        self._send(buffer, pairs, [])

    def send(self, rows: Sequence[PlannedRow], pairs: Pairs) -> StepFacts:
        """Send a step with at most `max_pairs` changes of rows."""
        buffer, layout = self._next(), self._layout
        ids, counts, ends, known, tokens = _columns(rows)
        starts = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(counts, out=starts[1:])
        layout.write_rows(buffer, ids, starts, ends)
        samples = np.flatnonzero(ends == known)
        layout.write_samples(buffer, starts[samples + 1] - 1, ids[samples], known[samples])
        self._send(buffer, pairs, tokens)
        return StepFacts(len(tokens), [rows[i] for i in samples.tolist()], counts, ends)

    def _next(self) -> Ints:
        self._turn = (self._turn + 1) % len(self._buffers)
        sent = self._sent[self._turn]
        if sent is not None:
            sent.synchronize()
        buffer: Ints = self._buffers[self._turn].numpy()
        return buffer

    def _send(self, buffer: Ints, pairs: Pairs, tokens: list[int]) -> None:
        tokens_at = self._layout.pairs_at + 2 * len(pairs)
        buffer[NUM_TOKENS], buffer[UPDATES_AT] = len(tokens), self._layout.pairs_at
        buffer[NUM_UPDATES], buffer[TOKENS_AT] = len(pairs), tokens_at
        buffer[self._layout.pairs_at : tokens_at] = pairs.reshape(-1)
        used = tokens_at + len(tokens)
        buffer[tokens_at:used] = tokens
        self.on_device[:used].copy_(self._buffers[self._turn][:used], non_blocking=True)
        self._sent[self._turn] = self._queue.mark()


def _columns(rows: Sequence[PlannedRow]) -> tuple[Ints, Ints, Ints, Ints, list[int]]:
    """Row, tokens added, tokens afterwards and tokens known of each row; and the tokens of all."""
    facts: list[int] = []
    tokens: list[int] = []
    for row in rows:
        request, end = row.request, row.start + row.count
        facts += (request.row, row.count, end, row.known)
        if end > len(request.tokens):
            tokens += request.tokens[row.start :]
            tokens.append(UNREAD)
        elif row.count == 1:
            tokens.append(request.tokens[row.start])
        else:
            tokens += request.tokens[row.start : end]
    ids, counts, ends, known = np.array(facts, np.int32).reshape(-1, 4).T
    return ids, counts, ends, known, tokens
