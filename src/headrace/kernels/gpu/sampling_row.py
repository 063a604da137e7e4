"""What a row asks of sampling, as the kernels read it."""

import triton
import triton.language as tl

TEMPERATURE = tl.constexpr(0)
TOP_K = tl.constexpr(1)
TOP_P = tl.constexpr(2)
MIN_P = tl.constexpr(3)
SEED = tl.constexpr(4)
REPETITION = tl.constexpr(6)
FREQUENCY = tl.constexpr(7)
PRESENCE = tl.constexpr(8)
DESCRIBED = tl.constexpr(9)
"""Fields of `row_params`."""

LOWEST = tl.constexpr(-3.3895313892515355e38)
"""The lowest bfloat16: logits are read as between this and its negative, and NaN as this, so that all are finite."""


@triton.jit
def load_float(field: tl.tensor) -> tl.tensor:
    """A float that is kept as its bits."""
    return tl.load(field).to(tl.float32, bitcast=True)


@triton.jit
def truncates(row_params: tl.tensor) -> tl.tensor:
    """Whether the row draws from some tokens only; greedy rows do not."""
    limited = (
        (tl.load(row_params + TOP_K) > 0)
        | (load_float(row_params + TOP_P) < 1.0)
        | (load_float(row_params + MIN_P) > 0.0)
    )
    return limited & (load_float(row_params + TEMPERATURE) > 0.0)


@triton.jit
def finite(x: tl.tensor) -> tl.tensor:
    """Bounded by `LOWEST` and its negative; -0 becomes 0, since logits are compared by their bits."""
    return tl.minimum(tl.maximum(x, LOWEST), -LOWEST) + 0.0
