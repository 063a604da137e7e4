"""The sampling parameters of the running rows, as the kernels read them: int32 [num_rows, PARAM_FIELDS]."""

import struct
from dataclasses import dataclass

PARAM_FIELDS = 12
"""Temperature, top_k, top_p, min_p, the low and the high half of the seed; repetition, frequency and presence penalty;
how many tokens are described, or NO_DESCRIPTION; two are unused. Floats as their bits."""

MOST_DESCRIBED = 20
"""Of the most likely tokens, those that the kernels describe at most."""

NO_DESCRIPTION = -1


@dataclass(frozen=True, slots=True)
class RowParams:
    """How a row samples. Temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off, as are the penalties here.

    `seed` is any integer; its low 64 bits count. `top_k` must be less than the vocabulary, or 0. `described`: with how
    many of the most likely tokens, at most MOST_DESCRIBED and the vocabulary, the token's log probability is told, or
    NO_DESCRIPTION.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    described: int = NO_DESCRIPTION

    def pack(self) -> list[int]:
        """PARAM_FIELDS signed 32-bit values."""
        drawn = struct.pack("<fiffQ", self.temperature, self.top_k, self.top_p, self.min_p, self.seed & (1 << 64) - 1)
        penalties = struct.pack("<fff", self.repetition_penalty, self.frequency_penalty, self.presence_penalty)
        return list(struct.unpack(f"<{PARAM_FIELDS}i", drawn + penalties + struct.pack("<i8x", self.described)))
