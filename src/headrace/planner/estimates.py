"""What only a GPU can tell, until it is fitted on one: each constant with where it comes from and when."""

from dataclasses import dataclass
from typing import Final

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
GRAPHS_BYTES: Final = Estimate(
    300 * _MIB, "estimate: 0.1 to 0.5 GB is reported for up to 35 graphs that share a pool", "2026-11-23"
)
GRAPHED_TOKENS: Final = Estimate(
    2048,
    "by construction: the most tokens of a step that is captured; graphs keep its memory to themselves",
    "2026-11-24",
)
COLLECTIVES_BYTES: Final = Estimate(
    600 * _MIB, "estimate: NCCL is reported to take 0.2 to 1 GB on each GPU of a group", "2026-11-23"
)
FRAGMENTED_SHARE: Final = Estimate(
    0.025, "estimate: the allocator is reported to lose 2 to 3 % of what a step takes", "2026-11-23"
)
SAMPLED_BYTES: Final = Estimate(
    13, "by construction: two fp32 copies of logits that requests edit, and what penalties count (4 + 1)", "2026-11-24"
)
