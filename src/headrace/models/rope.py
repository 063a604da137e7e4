"""Rotary position frequencies: default, linear, dynamic (NTK), llama3 and yarn, as one table of cosines and sines.

The arithmetic is in float32 and in the order that transformers' `ROPE_INIT_FUNCTIONS` use, so that both agree to the
last bit: at position 8,000 a relative error of 1e-7 in a frequency is an angle of 1e-3.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from headrace.planner.shape import ModelShape, RopeScaling


def cos_sin_table(shape: ModelShape, max_positions: int, device: torch.device) -> Tensor:
    """Cosines, then sines, of the D/2 frequencies at each position: float32 `[max_positions, D]`.

    The attention factor of the scaling is multiplied in.

    Dynamic NTK: row p has the frequencies for a sequence of max(p + 1, trained context) tokens. This equals
    transformers for prompts within the trained context and for decoding token by token beyond it, and, unlike
    transformers, does not depend on how a longer prompt is cut into chunks.
    """
    frequencies = _FREQUENCIES[shape.rope_scaling.kind](shape)
    positions = torch.arange(max_positions, dtype=torch.float32)
    angles = positions[:, None] * frequencies
    if shape.rope_scaling.kind == "dynamic":
        _stretch_beyond_context(angles, shape)
    factor = attention_factor(shape.rope_scaling)
    return torch.cat((angles.cos() * factor, angles.sin() * factor), dim=-1).to(device)


def attention_factor(scaling: RopeScaling) -> float:
    """What cosines and sines are multiplied with; other than 1 only for yarn (section 3.4 of arXiv:2309.00071)."""
    if scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _yarn_mscale(scaling.factor, scaling.mscale) / _yarn_mscale(scaling.factor, scaling.mscale_all_dim)
    return _yarn_mscale(scaling.factor, 1.0)


def _yarn_mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _exponents(head_dim: int) -> Tensor:
    return torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim


def _default(shape: ModelShape) -> Tensor:
    return 1.0 / (shape.rope_theta ** _exponents(shape.head_dim))


def _linear(shape: ModelShape) -> Tensor:
    return _default(shape) / shape.rope_scaling.factor


def _llama3(shape: ModelShape) -> Tensor:
    """Keep the high frequencies, divide the low ones by the factor, and blend between (Llama 3.1)."""
    scaling, trained = shape.rope_scaling, _trained_context(shape)
    frequencies = _default(shape)
    wavelength = 2 * math.pi / frequencies
    longest, shortest = trained / scaling.low_freq_factor, trained / scaling.high_freq_factor
    scaled = torch.where(wavelength > longest, frequencies / scaling.factor, frequencies)
    keep = (trained / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blended = (1 - keep) * scaled / scaling.factor + keep * scaled
    return torch.where((wavelength >= shortest) & (wavelength <= longest), blended, scaled)


def _yarn(shape: ModelShape) -> Tensor:
    """Interpolate the frequencies that turn less than `beta_slow` times over the trained context ("NTK by parts")."""
    scaling = shape.rope_scaling
    powers = shape.rope_theta ** _exponents(shape.head_dim)
    low, high = _yarn_range(shape)
    ramp = (torch.arange(shape.head_dim // 2, dtype=torch.float32) - low) / (high - low)
    keep = 1 - ramp.clamp(0, 1)
    return 1.0 / (scaling.factor * powers) * (1 - keep) + 1.0 / powers * keep


def _yarn_range(shape: ModelShape) -> tuple[float, float]:
    """Between which dimensions interpolation sets in."""
    scaling, trained = shape.rope_scaling, _trained_context(shape)

    def dimension(rotations: float) -> float:
        turns = math.log(trained / (rotations * 2 * math.pi))
        return shape.head_dim * turns / (2 * math.log(shape.rope_theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, shape.head_dim - 1)
    return low, high + 0.001 if low == high else high


def _stretch_beyond_context(angles: Tensor, shape: ModelShape) -> None:
    """Overwrite the angles of positions past the trained context with those of NTK's larger base."""
    trained, dim, factor = shape.max_position_embeddings, shape.head_dim, shape.rope_scaling.factor
    lengths = torch.arange(trained + 1, len(angles) + 1, dtype=torch.float32)[:, None]
    base = shape.rope_theta * (factor * lengths / trained - (factor - 1)) ** (dim / (dim - 2))
    angles[trained:] = (lengths - 1) * (1.0 / base ** _exponents(dim))


def _trained_context(shape: ModelShape) -> int:
    return shape.rope_scaling.original_max_position_embeddings or shape.max_position_embeddings


_FREQUENCIES: dict[str, Callable[[ModelShape], Tensor]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _default,
    "llama3": _llama3,
    "yarn": _yarn,
}
