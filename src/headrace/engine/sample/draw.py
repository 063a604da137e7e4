"""Drawing tokens from logits: temperature, top-k, top-p, min-p, and one uniform number a row.

A token is drawn by inverting the cumulative distribution, so that a row needs one random number and its result
depends on nothing but its own logits, parameters and number. Truncation looks at the `CANDIDATES` most likely tokens
first, because sorting a whole vocabulary costs milliseconds; a row whose top-p mass lies beyond them is sorted whole.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 512
WHOLE_ROWS = 16
"""Rows that are sorted whole at a time: sorting takes many times the memory of the logits."""


@dataclass(frozen=True, slots=True)
class DrawParams:
    """Columns [R, 1] on the device; `uniform` in [0, 1). `top_k` 0 and `top_p` 1 are off."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    uniform: Tensor

    def select(self, index: Tensor) -> "DrawParams":
        """The rows `index` only."""
        return DrawParams(
            self.temperature[index], self.top_k[index], self.top_p[index], self.min_p[index], self.uniform[index]
        )


def scale(logits: Tensor, params: DrawParams) -> Tensor:
    """Logits [R, V] over temperature, without the tokens less likely than min_p times the most likely one."""
    x = logits / params.temperature
    floor = x.amax(-1, keepdim=True) + params.min_p.log()  # log 0 is -inf: off
    return x.masked_fill_(x < floor, float("-inf"))


def draw_whole(x: Tensor, uniform: Tensor) -> Tensor:
    """Draw from the whole vocabulary: scaled logits [R, V] to token ids [R]."""
    return _invert(x.softmax(-1), uniform)


def draw_truncated(x: Tensor, params: DrawParams) -> Tensor:
    """Draw from the top-k and top-p tokens: scaled logits [R, V] to token ids [R]."""
    vocab_size = x.shape[-1]
    count = min(vocab_size, max(CANDIDATES, int(params.top_k.max())))
    tokens, short = _draw_among(x, params, count)
    if count < vocab_size and bool(short.any()):
        for index in torch.split(short.nonzero().squeeze(-1), WHOLE_ROWS):
            tokens[index] = _draw_among(x[index], params.select(index), vocab_size)[0]
    return tokens


def _draw_among(x: Tensor, params: DrawParams, count: int) -> tuple[Tensor, Tensor]:
    """Draw among the `count` most likely; and for each row whether more would have been needed."""
    values, ids = x.topk(count, dim=-1)
    limited = params.top_k > 0
    beyond = limited & (torch.arange(count, device=x.device) >= params.top_k)
    values = values.masked_fill(beyond, float("-inf"))
    mass = torch.where(limited, values.logsumexp(-1, keepdim=True), x.logsumexp(-1, keepdim=True))
    probabilities = (values - mass).exp()
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= params.top_p, 0.0)
    short = ~limited & (before[:, -1:] + probabilities[:, -1:] < params.top_p)
    return ids.gather(-1, _invert(probabilities, params.uniform)[:, None]).squeeze(-1), short.squeeze(-1)


def _invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The index at which the cumulative sum of [R, N] passes `uniform` [R, 1] of its total; never one of weight 0.

    A row that is not finite gives the last index: wrong weights must not break the step for the other rows.
    """
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).clamp_max(cumulative.shape[-1] - 1).squeeze(-1)
