"""Messages to the device, one for each step, and the tokens that come back, all in memory that both reach."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.engine.run.device.layout import Ints, Layout
from headrace.engine.run.device.queue import DeviceQueue
from headrace.engine.run.device.rows import Pairs
from headrace.engine.sched.plan import PlannedRow, StepPlan
from headrace.kernels.gpu.exchange import NUM_PAIRS, NUM_TOKENS, hand_out_launch, receive_launch

UNREAD = -1


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What the host knows of a step it has told: its tokens, the S rows that sample, and each row's lengths, int32 [R].

    `place` is where its answer will be; of the sampling rows there are numbers and known tokens, [S].
    """

    place: int
    num_tokens: int
    sample_rows: NDArray[np.intp]
    sample_known: Ints
    query_lens: Ints
    kv_lens: Ints

    @property
    def num_rows(self) -> int:
        """Rows of the step."""
        return len(self.query_lens)

    @property
    def num_samples(self) -> int:
        """Rows that make a token."""
        return len(self.sample_rows)

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
        self._count_up = np.arange(layout.max_rows + 1, dtype=np.int32)
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
        self._write(message, 0, [], pairs)

    def send(self, plan: StepPlan, pairs: Pairs) -> StepFacts:
        """Write the message of a step with at most `max_pairs` changes of rows."""
        place, message = self._next()
        columns = plan.columns()
        ids, known = columns.row_ids, columns.known
        starts, last = self._count_up[: len(ids) + 1], self._count_up[: len(ids)]
        if plan.single:
            starts = np.concatenate((starts[:1], np.cumsum(columns.counts, dtype=np.int32)))
        self._layout.write_rows(message, ids, starts, columns.ends)
        if plan.single:
            samples = columns.ends == known
            last, ids, known = starts[1:][samples] - 1, ids[samples], known[samples]
        self._layout.write_samples(message, last, ids, known)
        self._write(message, len(plan.decodes), _tokens(plan.single), pairs)
        return StepFacts(place, plan.num_tokens, ids, known, columns.counts, columns.ends)

    def receive(self, memory: Tensor) -> None:
        """Have the device take the next message, and carry out its changes on the rows' `memory`."""
        receive_launch(self._messages, self.step, memory, self._turns, self._layout.columns).run()

    def hand_out(self, tokens: Tensor) -> None:
        """Have the device answer the message that it took last."""
        hand_out_launch(tokens, self._answers, self._turns).run()

    def answer(self, facts: StepFacts) -> Ints:
        """The tokens int32 [S] of a step, once the device has handed them out; good until its place's next turn."""
        return self._read[facts.place][: facts.num_samples]

    def _next(self) -> tuple[int, Ints]:
        place = self._sent % len(self._written)
        self._sent += 1
        return place, self._written[place]

    def _write(self, message: Ints, num_unread: int, tokens: list[int], pairs: Pairs) -> None:
        """Header, tokens, those on the device first, and changes."""
        message[NUM_TOKENS], message[NUM_PAIRS] = num_unread + len(tokens), len(pairs)
        tokens_at = self._layout.columns + num_unread
        pairs_at = tokens_at + len(tokens)
        message[self._layout.columns : tokens_at] = UNREAD
        message[tokens_at:pairs_at] = tokens
        message[pairs_at : pairs_at + 2 * len(pairs)] = pairs.reshape(-1)


def _tokens(rows: Sequence[PlannedRow]) -> list[int]:
    """The tokens of all rows, one after another, as far as the host has read them."""
    tokens: list[int] = []
    for row in rows:
        tokens += row.request.tokens[row.start : row.end]
        if row.end > len(row.request.tokens):
            tokens.append(UNREAD)
    return tokens
