"""The sequences that decode, as columns by row: a step of theirs costs array operations, and nothing for each of them.

A sequence is in here while each of its steps is like the last: one token, computed from the one that the step before
has left on the device, written to a block that it has. Whatever else happens to it happens to the `Request`, which
`leave` brings up to date: a new block, its last token, preemption, its end.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.engine.request import Request

Rows = NDArray[np.intp]
Ints = NDArray[np.int32]

MAX_END_TOKENS = 8
"""A sequence that more tokens may end is not decoded in columns."""

_NO_TOKEN = -1


class Decoding:
    """Columns of `num_rows` entries. A row is a sequence's own until no step in flight has it.

    Of a sequence in here, `num_computed`, `num_unread`, `steps_in_flight` and the end of `tokens` are in the columns,
    and in the request only once it has left or, for the tokens, after `pull`.
    """

    def __init__(self, num_rows: int, tokens_kept: int) -> None:
        """`tokens_kept` is how many tokens of a sequence the columns hold: a block's, and one for each step in flight.

        A sequence leaves before it makes more.
        """
        self._owners: list[Request | None] = [None] * num_rows
        self._uids = np.zeros(num_rows, np.int64)
        self._here = np.zeros(num_rows, np.bool_)
        self._known = np.zeros(num_rows, np.int32)
        self._until = np.zeros(num_rows, np.int32)
        self._in_flight = np.zeros(num_rows, np.int32)
        self._end_tokens = np.full((MAX_END_TOKENS, num_rows), _NO_TOKEN, np.int32)
        self._made = np.zeros((num_rows, tokens_kept), np.int32)
        self._num_made = np.zeros(num_rows, np.intp)
        self._rows: Rows | None = None
        self._steps_alike = 0

    @property
    def rows(self) -> Rows:
        """The rows of the sequences that are here, ascending. Not to be written to."""
        if self._rows is None:
            self._rows = np.flatnonzero(self._here)
            if len(self._rows):
                self._steps_alike = int((self._until[self._rows] - self._known[self._rows]).min()) + 1
        return self._rows

    def admit(self, request: Request) -> None:
        """Note whose a row is from now on."""
        row, ends = request.row, list(request.end_token_ids)[:MAX_END_TOKENS]
        self._owners[row] = request
        self._uids[row] = request.uid
        self._end_tokens[: len(ends), row] = ends
        self._end_tokens[len(ends) :, row] = _NO_TOKEN

    def owner(self, row: int) -> Request:
        """Whose a row is, or was last."""
        request = self._owners[row]
        assert request is not None
        return request

    def uids(self, rows: Rows) -> NDArray[np.int64]:
        """Whose rows these are."""
        return self._uids[rows]

    def enter(self, request: Request, until: int) -> None:
        """Take over a request whose planned steps make all its tokens that the host does not know.

        It is in every step from now on, while it has no more than `until` tokens when that is planned.
        """
        row, known = request.row, request.num_tokens
        self._here[row] = True
        self._known[row] = known
        self._until[row] = min(until, known + self._made.shape[1] - request.steps_in_flight - 1)
        self._in_flight[row] = request.steps_in_flight
        self._num_made[row] = 0
        request.decoding = True
        self._rows = None

    def leave(self, request: Request) -> None:
        """Give a request back as it is after the steps that were planned and committed, if it is here."""
        if not request.decoding:
            return
        row, known = request.row, int(self._known[request.row])
        self.pull(request)
        request.num_unread = known - len(request.tokens)
        request.num_computed = known - 1
        request.steps_in_flight = int(self._in_flight[row])
        request.decoding = False
        self._here[row] = False
        self._rows = None

    def leave_due(self) -> None:
        """Give back every request whose next step is unlike its last."""
        rows = self.rows
        if self._steps_alike > 0 or not len(rows):
            return
        due = self._known[rows] > self._until[rows]
        for row in rows[due].tolist():
            self.leave(self.owner(row))

    def plan(self) -> tuple[Rows, Ints]:
        """Put each sequence into one more step: the rows, and how many tokens each has, all computed with the step."""
        rows = self.rows
        known = self._known[rows]
        self._known[rows] = known + 1
        self._in_flight[rows] += 1
        self._steps_alike -= 1
        return rows, known

    def commit(self, rows: Rows, tokens: Ints, excepted: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Take the tokens of a step that had these rows, but for `excepted` places: which it took, and whose they are.

        Not those that have left, nor tokens that may end their sequence.
        """
        taken = self._here[rows]
        may_end = self._end_tokens[:, rows] == tokens
        if excepted or may_end.any() or not taken.all():
            taken &= ~may_end.any(0)
            taken[excepted] = False
            rows, tokens = rows[taken], tokens[taken]
        made = self._num_made[rows]
        self._made[rows, made] = tokens
        self._num_made[rows] = made + 1
        self._in_flight[rows] -= 1
        return taken, self._uids[rows]

    def commit_one(self, request: Request) -> None:
        """A step that had a request is done; its token, if it made one, is for the caller to append."""
        self.pull(request)
        self._in_flight[request.row] -= 1

    def pull(self, request: Request) -> None:
        """Append to a request's tokens those that only the columns have."""
        row, count = request.row, self._num_made[request.row]
        if count:
            request.tokens += self._made[row, :count].tolist()
            self._num_made[row] = 0
