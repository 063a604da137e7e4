"""Messages to the device, one for each step, and the tokens that come back, all in memory that both reach."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headrace.engine.run.device.layout import Ints, Layout
from headrace.engine.run.device.queue import DeviceQueue
from headrace.engine.run.device.rows import Pairs
from headrace.engine.sched.plan import PlannedRow
from headrace.kernels.gpu.exchange import NUM_PAIRS, NUM_TOKENS, hand_out_launch, receive_launch

UNREAD = -1


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What the host knows of a step it has told: its tokens, the rows that sample, and each row's lengths, int32 [R].

    `place` is where its answer will be.
    """

    place: int
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


class Mailbox:
    """Messages and answers, `num_places` of each in turn: as many steps may be on their way, and one be written.

    `step` on the device is where a message goes when it is received.
    """

    def __init__(self, layout: Layout, queue: DeviceQueue, num_places: int) -> None:
        self.max_pairs = layout.max_pairs
        self.step = torch.zeros(layout.step_size, dtype=torch.int32, device=queue.device)
        self._layout = layout
        self._messages = queue.pinned(num_places, layout.message_size).zero_()
        self._answers = queue.pinned(num_places, layout.max_rows).zero_()
        self._written: list[Ints] = [message.numpy() for message in self._messages]
        self._read: list[Ints] = [answer.numpy() for answer in self._answers]
        self._turns = torch.zeros(1, dtype=torch.int64, device=queue.device)
        self._sent = 0

    def restart(self) -> None:
        """Count from the beginning again, after the device has received what nobody sent."""
        self._turns.zero_()
        self._sent = 0

    def send_changes(self, pairs: Pairs) -> None:
        """Write a message of changes of rows alone."""
        _, message = self._next()
        empty = np.zeros(0, np.int32)
        self._layout.write_rows(message, empty, np.zeros(1, np.int32), empty)
        self._layout.write_samples(message, empty, empty, empty)
        self._write(message, [], pairs)

    def send(self, rows: Sequence[PlannedRow], pairs: Pairs) -> StepFacts:
        """Write the message of a step with at most `max_pairs` changes of rows."""
        place, message = self._next()
        ids, counts, ends, known, tokens = _columns(rows)
        starts = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(counts, out=starts[1:])
        self._layout.write_rows(message, ids, starts, ends)
        samples = np.flatnonzero(ends == known)
        self._layout.write_samples(message, starts[samples + 1] - 1, ids[samples], known[samples])
        self._write(message, tokens, pairs)
        return StepFacts(place, len(tokens), [rows[i] for i in samples.tolist()], counts, ends)

    def receive(self, memory: Tensor) -> None:
        """Have the device take the next message, and carry out its changes on the rows' `memory`."""
        receive_launch(self._messages, self.step, memory, self._turns, self._layout.columns).run()

    def hand_out(self, tokens: Tensor) -> None:
        """Have the device answer the message that it took last."""
        hand_out_launch(tokens, self._answers, self._turns).run()

    def answer(self, facts: StepFacts) -> list[int]:
        """The tokens of a step, once the device has handed them out."""
        tokens: list[int] = self._read[facts.place][: len(facts.sampling)].tolist()
        return tokens

    def _next(self) -> tuple[int, Ints]:
        place = self._sent % len(self._written)
        self._sent += 1
        return place, self._written[place]

    def _write(self, message: Ints, tokens: list[int], pairs: Pairs) -> None:
        message[NUM_TOKENS], message[NUM_PAIRS] = len(tokens), len(pairs)
        pairs_at = self._layout.columns + len(tokens)
        message[self._layout.columns : pairs_at] = tokens
        message[pairs_at : pairs_at + 2 * len(pairs)] = pairs.reshape(-1)


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
