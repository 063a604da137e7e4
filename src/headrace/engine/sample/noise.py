"""The randomness of sampling: one number for each (seed, position), whatever else is in the batch."""

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def uniforms(seeds: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Uniform in [0, 1), in steps of 2**-24 so that float32 holds each exactly.

    SplitMix64 (Steele, Lea, Flood 2014) over the position, started from the mixed seed, so that neighbouring seeds
    and neighbouring positions are unrelated.
    """
    with np.errstate(over="ignore"):
        state = _mix(seeds + _GOLDEN) + positions.astype(np.uint64) * _GOLDEN
        bits = _mix(state) >> np.uint64(40)
    return (bits.astype(np.float32) * np.float32(2.0**-24)).astype(np.float32)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    return x ^ (x >> np.uint64(31))


def derive_seed(seed: int, count: int) -> int:
    """The seed of the `count`-th request that names none, in an engine with this seed."""
    with np.errstate(over="ignore"):
        return int(_mix(_mix(np.array([seed & 0xFFFF_FFFF_FFFF_FFFF], np.uint64)) + np.uint64(count) * _GOLDEN)[0])
