"""Recognise Llama 3's rope scaling in a GGUF file, which keeps only its result: one divisor a frequency.

The rule (transformers' `_compute_llama3_parameters`): a frequency whose wavelength is under `original / high` stays,
one over `original / low` is divided by `factor`, and between the two the inverse divisor goes linearly in
1 / wavelength. Only the ratios of `original`, `low` and `high` can be told from the divisors, so `low` is taken to be
1, as it is in every published model.
"""

import math

from headrace.core.errors import HeadraceError
from headrace.planner.shape import RopeScaling

_TOLERANCE = 1e-3


def scaling_from_factors(factors: list[float], rope_theta: float) -> RopeScaling:
    """The scaling whose divisors are `factors` (rope_freqs.weight, head_dim / 2 values). Raises if there is none."""
    if all(abs(factor - 1) < _TOLERANCE for factor in factors):
        return RopeScaling()
    scaling = _fit(factors, rope_theta)
    if scaling is None or not _explains(scaling, factors, rope_theta):
        raise HeadraceError(
            "rope_freqs.weight of the GGUF file does not follow Llama 3's rule",
            rule="Rope frequencies are served where they follow llama3, linear or yarn scaling",
            fix="Use the safetensors version of this model",
            param="model",
        )
    return scaling


def llama3_factors(scaling: RopeScaling, rope_theta: float, count: int) -> list[float]:
    """The divisor of each of `count` frequencies under Llama 3's rule."""
    original = scaling.original_max_position_embeddings or 0
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    factors = []
    for wavelength in _wavelengths(rope_theta, count):
        smooth = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        factors.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return factors


def _wavelengths(rope_theta: float, count: int) -> list[float]:
    return [2 * math.pi * rope_theta ** (i / count) for i in range(count)]


def _fit(factors: list[float], rope_theta: float) -> RopeScaling | None:
    """A line through the two outermost frequencies that lie between "kept" and "divided by the whole factor"."""
    factor = max(factors)
    points = [
        (1 / wavelength, (1 / divisor - 1 / factor) / (1 - 1 / factor))
        for divisor, wavelength in zip(factors, _wavelengths(rope_theta, len(factors)), strict=True)
        if 1 + _TOLERANCE < divisor < factor * (1 - _TOLERANCE)
    ]
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return None
    (x0, y0), (x1, y1) = points[0], points[-1]
    slope = (y1 - y0) / (x1 - x0)
    intercept = y0 - slope * x0
    if slope <= 0 or intercept >= 0:
        return None
    high = round(1 - 1 / intercept, 3)
    return RopeScaling(
        "llama3",
        round(factor, 4),
        original_max_position_embeddings=round(slope * (high - 1)),
        low_freq_factor=1.0,
        high_freq_factor=high,
    )


def _explains(scaling: RopeScaling, factors: list[float], rope_theta: float) -> bool:
    expected = llama3_factors(scaling, rope_theta, len(factors))
    return all(math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in zip(expected, factors, strict=True))
