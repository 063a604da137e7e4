"""The sampling parameters of the running rows, as the kernels read them: int32 [num_rows, PARAM_FIELDS]."""

import struct

PARAM_FIELDS = 8
"""Temperature, top_k, top_p, min_p, the low and the high half of the seed; two are unused. Floats as their bits."""


def pack_row_params(temperature: float, top_k: int, top_p: float, min_p: float, seed: int) -> list[int]:
    """One row of signed 32-bit values. Temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off.

    `seed` is any integer; its low 64 bits count. `top_k` must be less than the vocabulary, or 0.
    """
    packed = struct.pack("<fiffQ8x", temperature, top_k, top_p, min_p, seed & 0xFFFF_FFFF_FFFF_FFFF)
    return list(struct.unpack(f"<{PARAM_FIELDS}i", packed))
