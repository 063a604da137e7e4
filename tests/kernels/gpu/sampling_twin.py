"""Sampling by its definition, in torch: penalties, the noise, the tokens that truncation leaves, the best, logprobs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headrace.kernels.gpu.row_params import NO_DESCRIPTION

_WORD = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Asked:
    """What one row asks for; 0, 1 and 0 are top_k, top_p and min_p off; `described` is how many tokens are."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    described: int = NO_DESCRIPTION

    @property
    def has_penalties(self) -> bool:
        """Whether what was seen matters."""
        return (self.repetition, self.frequency, self.presence) != (1.0, 0.0, 0.0)


def penalized(logits: Tensor, asked: Asked, in_prompt: Tensor, counts: Tensor) -> Tensor:
    """Logits [V] in fp32, given which tokens the prompt has, bool [V], and how often each was put out, int [V]."""
    x = logits.float()
    factor = torch.where(in_prompt | (counts > 0), asked.repetition, 1.0)
    x = torch.where(x > 0, x / factor, x * factor)
    return x - asked.frequency * counts - asked.presence * (counts > 0)


def noise(seeds: Tensor, positions: Tensor, tokens: Tensor) -> Tensor:
    """Gumbel noise of int64 tensors that broadcast together."""
    low, high = seeds & _WORD, (seeds >> 32) & _WORD
    key = _mix(_mix(_mix(low + 0x3C6EF372) + high) + positions)
    other_key = _mix(_mix(_mix(high + 0x1F83D9AB) + positions) + low)
    x = (tokens * 0x9E3779B9 + key) & _WORD
    x ^= x >> 16
    x = (x * 0x7FEB352D) & _WORD
    x ^= (x >> 15) ^ other_key
    x = (x * 0x846CA68B) & _WORD
    uniform = ((x ^ (x >> 16)).double() + 0.5) / 2**32
    return -torch.log(-torch.log1p(-uniform))


def _mix(x: Tensor) -> Tensor:
    x = x & _WORD
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def scores(logits: Tensor, asked: Asked, position: int) -> Tensor:
    """What the token is the argmax of, over those that are kept: logits [V] over temperature, with noise."""
    tokens = torch.arange(len(logits), device=logits.device)
    seeds = torch.full_like(tokens, (asked.seed + 2**63) % 2**64 - 2**63)
    return logits.double() / asked.temperature + noise(seeds, torch.full_like(tokens, position), tokens)


def kept(logits: Tensor, asked: Asked, slack: float = 0.0) -> Tensor:
    """Which tokens [V] truncation leaves; with `slack` also those that rounding might leave (or, if < 0, not)."""
    x = logits.double() / asked.temperature
    left = torch.ones_like(x, dtype=torch.bool)
    if asked.min_p > 0:
        left &= x >= x.max() + math.log(asked.min_p) - slack
    if asked.top_k:
        left &= x >= x.sort(descending=True).values[asked.top_k - 1]
    weights = torch.where(left, (x - x.max()).exp(), 0.0)
    values, group = x.unique(return_inverse=True)
    masses = torch.zeros_like(values).index_add(0, group, weights)
    above = masses.sum() - masses.cumsum(0)
    return left & (asked.top_p >= 1 or above[group] < (asked.top_p + slack) * masses.sum())
