"""Repetition, frequency and presence penalties, by vLLM's (and OpenAI's) formulas, as the logits are loaded.

What a row has seen of each token is one int16: how often it was put out, up to COUNTED, and IN_PROMPT, which is the
sign, if the prompt has it.
"""

import triton
import triton.language as tl

from headrace.kernels.gpu.sampling_row import FREQUENCY, LOWEST, PRESENCE, REPETITION, finite, load_float
from headrace.kernels.gpu.sampling_workspace import COUNTED

_COUNTED = tl.constexpr(COUNTED)


@triton.jit
def penalizes(row_params: tl.tensor) -> tl.tensor:
    """Whether the row has a penalty."""
    return (
        (load_float(row_params + REPETITION) != 1.0)
        | (load_float(row_params + FREQUENCY) != 0.0)
        | (load_float(row_params + PRESENCE) != 0.0)
    )


@triton.jit
def penalized(x: tl.tensor, seen: tl.tensor, row_params: tl.tensor) -> tl.tensor:
    """Logits in fp32 of tokens of which the row has `seen` so much."""
    count = seen.to(tl.int32) & _COUNTED
    factor = tl.where(seen != 0, load_float(row_params + REPETITION), 1.0)
    x = tl.where(x > 0, x / factor, x * factor)
    x = tl.fma(count.to(tl.float32), -load_float(row_params + FREQUENCY), x)  # to the same bits in every kernel
    return x - tl.where(count > 0, load_float(row_params + PRESENCE), 0.0)


@triton.jit
def load_penalized(row: tl.tuple, token: tl.tensor, exists: tl.tensor) -> tl.tensor:
    """Logits in fp32, all finite; those of tokens that do not exist are `LOWEST`.

    `row` is where its logits, what it has seen and its parameters are, and whether it has a penalty.
    """
    logits, seen, row_params, has_penalty = row
    x = tl.load(logits + token, exists, other=LOWEST).to(tl.float32)
    if has_penalty:
        x = penalized(x, tl.load(seen + token, exists, other=0), row_params)
    return finite(x)


@triton.jit
def count_token(seen: tl.tensor) -> None:
    """One more of a token was put out; `seen` is where the row counts it."""
    before = tl.load(seen).to(tl.int32)
    tl.store(seen, (before + ((before & _COUNTED) < _COUNTED).to(tl.int32)).to(tl.int16))
