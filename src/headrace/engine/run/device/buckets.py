"""The sizes that steps are captured for: a step runs as the smallest that holds it."""

from bisect import bisect_left
from dataclasses import dataclass

from headrace.planner.step_sizes import row_sizes, token_sizes


@dataclass(frozen=True, slots=True)
class Buckets:
    """Ascending sizes: `rows` of steps that add one token to each row (and of sampling), `tokens` of all others."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]

    def for_rows(self, count: int) -> int:
        """The size for `count` rows, at most the largest."""
        return self.rows[bisect_left(self.rows, count)]

    def for_tokens(self, count: int) -> int | None:
        """The size for `count` tokens; None if no step of so many was captured."""
        at = bisect_left(self.tokens, count)
        return self.tokens[at] if at < len(self.tokens) else None


def step_buckets(max_num_seqs: int, max_num_batched_tokens: int) -> Buckets:
    """The sizes for an engine's limits, which the planner counts the graphs' memory by."""
    return Buckets(row_sizes(max_num_seqs), token_sizes(max_num_batched_tokens))
