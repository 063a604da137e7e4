"""Sizes that the engine works in and the planner counts memory by: steps that are recorded, rows that are edited.

A step runs as the smallest recorded size that holds it.
"""

from dataclasses import dataclass
from typing import Final

MOST_GRAPHED_TOKENS: Final = 2048
"""A larger step keeps the device busy for longer than it takes to launch its kernels one by one."""

EDITED_ROWS: Final = 32
"""Rows of logits that are edited or described (penalties, biases, logprobs) at a time, in float32."""

_SMALL = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class GraphCount:
    """Graphs that hold a pass through all layers, and graphs that only sample."""

    passes: int
    samplings: int


def row_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """Rows of the steps that add one token to each, and of sampling: in steps of 8, so that few are padding."""
    rows = [size for size in (*_SMALL, *range(16, max_num_seqs, 8)) if size < max_num_seqs]
    return (*rows, max_num_seqs)


def token_sizes(max_num_batched_tokens: int) -> tuple[int, ...]:
    """Tokens of all other steps that are recorded: in steps of an eighth to a quarter."""
    most = min(max_num_batched_tokens, MOST_GRAPHED_TOKENS)
    tokens = [16, 32, 48]
    while tokens[-1] < most:
        power = 1 << (tokens[-1].bit_length() - 1)
        tokens.append(tokens[-1] + power // 4)
    return (*(size for size in tokens if size < most), most)


def graph_count(max_num_seqs: int, max_num_batched_tokens: int) -> GraphCount:
    """What an engine with these limits records: for each size of rows a step and its sampling alone, else a step."""
    rows = sum(size < max_num_seqs for size in _SMALL) + len(range(16, max_num_seqs, 8)) + 1
    return GraphCount(passes=rows + len(token_sizes(max_num_batched_tokens)), samplings=rows)
