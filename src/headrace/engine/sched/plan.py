"""What one step will compute, as the scheduler decided it."""

from dataclasses import dataclass, field

from headrace.engine.request import Request


@dataclass(slots=True)
class PlannedRow:
    """`count` tokens of a request from position `start` on; the request had `known` tokens when it was planned."""

    request: Request
    start: int
    count: int
    known: int

    @property
    def end(self) -> int:
        """Tokens of the request that are in the cache after the step."""
        return self.start + self.count

    @property
    def samples(self) -> bool:
        """Whether the row reaches the sequence's end, so that the step makes its next token."""
        return self.end == self.known


@dataclass(slots=True)
class StepPlan:
    """The rows of a step, the requests among them that have just got their row, and the copies that come before."""

    rows: list[PlannedRow] = field(default_factory=list)
    admitted: list[Request] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return sum(row.count for row in self.rows)


class Draft:
    """A plan in the making: rows by uid, and the token budget that is left."""

    def __init__(self, budget: int) -> None:
        self.rows: dict[int, PlannedRow] = {}
        self.admitted: list[Request] = []
        self.budget = budget
        self.out_of_blocks = False

    def plan(self, request: Request, count: int) -> None:
        """Put a request's next `count` tokens into the step."""
        self.rows[request.uid] = PlannedRow(request, request.num_computed, count, request.num_tokens)
        self.budget -= count

    def drop(self, request: Request) -> None:
        """Take a request out again, if it is in."""
        row = self.rows.pop(request.uid, None)
        if row is not None:
            self.budget += row.count
