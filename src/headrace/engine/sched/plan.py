"""What one step will compute, as the scheduler decided it."""

from dataclasses import dataclass, field

from headrace.engine.request import Request


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
