"""The noise of sampling: a number for each (seed, position, token), whatever else is in the batch.

A token is drawn as the argmax of logit / temperature + Gumbel noise (the Gumbel-max trick), which is a draw from the
softmax; Gumbel noise is -log of an exponential random number. Everything is in base 2, where a logarithm is one
instruction: the scale of logits has log2 e multiplied in, and the exponential's own scale makes no difference.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def noise_keys(row_params: tl.tensor, position: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Two words that say which noise a row has; `row_params` points to the row's seed: its low and its high half."""
    low = tl.load(row_params).to(tl.uint32, bitcast=True)
    high = tl.load(row_params + 1).to(tl.uint32, bitcast=True)
    place = position.to(tl.uint32)
    return _mix(_mix(_mix(low + 0x3C6EF372) + high) + place), _mix(_mix(_mix(high + 0x1F83D9AB) + place) + low)


@triton.jit
def log_exponential(token: tl.tensor, key: tl.tensor, other_key: tl.tensor) -> tl.tensor:
    """The base-2 logarithm of an exponential random number for each token.

    Small ones win, so these are the fine ones: a uniform number is made with all 32 bits near 0, and its logarithm
    taken by a series there.
    """
    uniform = _hash(token, key, other_key).to(tl.float32) * 2.3283063e-10 + 1.1641532e-10
    series = uniform * (uniform * (uniform * (-LOG2_E / 3) - LOG2_E / 2) - LOG2_E)
    return _log2(tl.abs(tl.where(uniform < 0.015625, series, _log2(1.0 - uniform))))


@triton.jit
def _log2(x: tl.tensor) -> tl.tensor:
    """The card's own logarithm, to 22 bits; Triton's is twenty instructions longer."""
    if _INTERPRETED:
        return tl.log2(x)
    return tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
def _hash(token: tl.tensor, key: tl.tensor, other_key: tl.tensor) -> tl.tensor:
    """32 random bits for each token: `_mix` with the keys let in before and within."""
    x = token.to(tl.uint32) * 0x9E3779B9 + key
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= (x >> 15) ^ other_key
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _mix(x: tl.tensor) -> tl.tensor:
    """lowbias32 (Wellons, hash-prospector): a bijection in which every bit in changes every bit out."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)
