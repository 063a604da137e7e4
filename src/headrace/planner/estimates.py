"""What only a GPU can tell, until it is fitted on one: each constant with where it comes from and when."""

from dataclasses import dataclass
from typing import Final

_KIB: Final = 2**10
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that is not derived; `source` and `as_of` (a date) say how it is known."""

    value: float
    source: str
    as_of: str

    @property
    def text(self) -> str:
        """Where it is from, for the one who reads a plan."""
        return f"{self.source} ({self.as_of})"


CONTEXT_BYTES: Final = Estimate(
    512 * _MIB, "estimate: a context with cuBLAS and Triton modules took 0.45 to 0.6 GB on an H100", "2026-11-23"
)
GRAPH_BYTES: Final = Estimate(
    64 * _KIB, "estimate: what a graph takes beside its kernels, or with those of sampling", "2026-11-24"
)
GRAPH_LAYER_BYTES: Final = Estimate(
    288 * _KIB,
    "fitted on an H100: a graph's kernels of one layer took 251 KiB (Qwen3-0.6B) and 332 (Llama-3.1-8B)",
    "2026-11-24",
)
COLLECTIVES_BYTES: Final = Estimate(
    600 * _MIB, "estimate: NCCL is reported to take 0.2 to 1 GB on each GPU of a group", "2026-11-23"
)
FRAGMENTED_SHARE: Final = Estimate(
    0.025, "estimate: the allocator is reported to lose 2 to 3 % of what a step takes", "2026-11-23"
)
PENALTY_BYTES: Final = Estimate(
    2, "by construction: what penalties count of each row, an int16 for each token", "2026-11-24"
)
EDITED_BYTES: Final = Estimate(
    40, "by construction: the most that logprobs of the whole vocabulary, or biases, hold at once", "2026-11-24"
)
"""For each token of EDITED_ROWS rows.

Biases: the row as it was, and edited (4 each). Logprobs of the whole vocabulary: the row twice and its logprobs (4
each), values and places in order (4 + 8), and what it takes to sort an eighth of the rows: below 40. Those of a prompt
hold the row in the model's dtype instead of once more.
"""
