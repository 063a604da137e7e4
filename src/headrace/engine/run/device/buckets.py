"""The sizes that steps are captured for: a step runs as the smallest that holds it."""

from bisect import bisect_left
from dataclasses import dataclass

_SMALL = (1, 2, 4, 8)
_MOST_GRAPHED_TOKENS = 2048
"""A larger step keeps the device busy for longer than it takes to launch its kernels one by one."""


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
    """Rows in steps of 8, so that few are padding; tokens in steps of an eighth to a quarter."""
    rows = [size for size in (*_SMALL, *range(16, max_num_seqs, 8)) if size < max_num_seqs]
    most = min(max_num_batched_tokens, _MOST_GRAPHED_TOKENS)
    tokens = [16, 32, 48]
    while tokens[-1] < most:
        power = 1 << (tokens[-1].bit_length() - 1)
        tokens.append(tokens[-1] + power // 4)
    return Buckets((*rows, max_num_seqs), (*(size for size in tokens if size < most), most))
