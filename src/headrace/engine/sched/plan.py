"""What one step will compute, as the scheduler decided it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headrace.engine.request import Request

Ints = NDArray[np.int32]
NO_ROWS = np.zeros(0, np.intp)
NO_INTS = np.zeros(0, np.int32)


class PlannedRow:
    """`count` tokens of a request from position `start` on; the request had `known` tokens when it was planned.

    `end` tokens of it are in the cache after the step. The row `samples` if that is the sequence's end, so that the
    step makes its next token.
    """

    __slots__ = ("count", "end", "known", "request", "samples", "start")

    def __init__(self, request: Request, start: int, count: int, known: int) -> None:
        self.request = request
        self.start = start
        self.count = count
        self.known = known
        self.end = start + count
        self.samples = self.end == known


@dataclass(frozen=True)
class Decodes:
    """Rows that each compute the last of their `known` tokens int32 [D], which is on the device, and make the next.

    `owner` says whose a row is, as long as the step is in flight.
    """

    rows: NDArray[np.intp] = field(default_factory=lambda: NO_ROWS)
    known: Ints = field(default_factory=lambda: NO_INTS)
    owner: Callable[[int], Request] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PlannedRow:
        assert self.owner is not None
        known = int(self.known[index])
        return PlannedRow(self.owner(int(self.rows[index])), known - 1, 1, known)


@dataclass(frozen=True)
class Columns:
    """All rows of a step, [R] each: the row's number, tokens added, tokens afterwards, and tokens known."""

    row_ids: NDArray[np.intp]
    counts: Ints
    ends: Ints
    known: Ints


@dataclass
class StepPlan:
    """A step's rows, `decodes` before those planned one by one, which are `single`.

    `admitted` are the requests among them that have just got their row, `copies` the block copies that come before.
    `num_tokens` are those that the step computes.
    """

    single: list[PlannedRow] = field(default_factory=list)
    admitted: list[Request] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    decodes: Decodes = field(default_factory=Decodes)
    num_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_tokens = len(self.decodes) + sum([row.count for row in self.single])

    @cached_property
    def rows(self) -> list[PlannedRow]:
        """All rows one by one, for what looks at each; not to be asked first when the step is over."""
        return [self.decodes[i] for i in range(len(self.decodes))] + self.single

    @cached_property
    def sampling(self) -> list[PlannedRow]:
        """Those of `rows` that make a token."""
        return [row for row in self.rows if row.samples]

    def columns(self) -> Columns:
        """All rows as columns."""
        rows, known, count = self.decodes.rows, self.decodes.known, len(self.decodes)
        if not self.single:
            return Columns(rows, np.ones(count, np.int32), known, known)
        facts = np.ones((4, count + len(self.single)), np.int32)
        facts[0, :count] = rows
        facts[2:, :count] = known
        facts[:, count:] = np.array([(row.request.row, row.count, row.end, row.known) for row in self.single]).T
        row_ids, counts, ends, known = facts
        return Columns(row_ids.astype(np.intp), counts, ends, known)


class Draft:
    """A plan in the making: rows by uid, who is `held` out of it, and the token budget that is left."""

    def __init__(self, budget: int) -> None:
        self.rows: dict[int, PlannedRow] = {}
        self.admitted: list[Request] = []
        self.held: set[int] = set()
        self.budget = budget
        self.out_of_blocks = False

    def plan(self, request: Request, count: int) -> None:
        """Put a request's next `count` tokens into the step."""
        known = len(request.tokens) + request.num_unread
        self.rows[request.uid] = PlannedRow(request, request.num_computed, count, known)
        self.budget -= count

    def drop(self, request: Request) -> None:
        """Take a request out again, if it is in."""
        row = self.rows.pop(request.uid, None)
        if row is not None:
            self.budget += row.count

    def hold(self, request: Request) -> None:
        """Leave a request out of the step, whether it is in or comes later."""
        self.drop(request)
        self.held.add(request.uid)
