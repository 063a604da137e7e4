"""Sampling against its definition; and its noise against chance."""

import math

import pytest
import torch
from gpu_cases import DEVICE, EVERY_DTYPE
from sampling_checks import DESCRIBED, MIXTURE, PENALIZED, UNWRITTEN, check_sampling, random_logits, sample
from sampling_twin import Asked, noise
from torch import Tensor

from headrace.kernels.gpu.row_params import PARAM_FIELDS, RowParams

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
DRAWS = 300_000


@pytest.mark.parametrize(
    ("dtype", "vocab_size"), [(torch.float32, 33), *[(dtype, 2500) for dtype in EVERY_DTYPE]], ids=str
)
def test_every_kind_of_row(dtype: torch.dtype, vocab_size: int) -> None:
    asked = [a for a in (*MIXTURE, *PENALIZED, *DESCRIBED) if a.top_k < vocab_size]
    check_sampling(random_logits(len(asked), vocab_size, dtype), asked)


def test_a_flat_distribution_is_searched_whole() -> None:
    asked = [Asked(1.0, top_p=0.3, seed=1), Asked(1.0, top_k=200, top_p=0.4, seed=2), Asked(1.0, 7, seed=3)]
    check_sampling(random_logits(len(asked), 9001, torch.float32, spread=0.1), asked)


def test_many_rows_of_large_chunks() -> None:
    asked = [*MIXTURE[:4], *[Asked(0.0)] * 36]
    check_sampling(random_logits(len(asked), 1200, torch.bfloat16), asked)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties(dtype: torch.dtype) -> None:
    """Few different logits: the first of equals if greedy, all of those equal to the last one kept otherwise."""
    logits = random_logits(len(MIXTURE), 600, torch.float32, spread=2.0).round().to(dtype)
    check_sampling(logits, MIXTURE)
    check_sampling(logits[:4], DESCRIBED)
    check_sampling(torch.zeros_like(logits[:3]), MIXTURE[:3])
    check_sampling(torch.zeros_like(logits[:4]), DESCRIBED)


def test_forbidden_tokens_are_not_drawn() -> None:
    """Fewer tokens than top_k, and a largest logit of every size and sign."""
    logits = torch.full((len(MIXTURE), 700), -torch.inf, device=DEVICE)
    for row in logits:
        row[torch.randperm(700)[:3]] = torch.randn(3, device=DEVICE) * 10 - 20
    check_sampling(logits, MIXTURE)
    check_sampling(logits[: len(PENALIZED)], PENALIZED)
    check_sampling(logits[: len(DESCRIBED)], DESCRIBED)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_rows_that_are_not_finite_get_some_token(share: float) -> None:
    asked = [a for a in (Asked(0.0), Asked(), Asked(0.6, 20, 0.95, 0.01), PENALIZED[4]) for _ in range(3)]
    value = torch.tensor([math.nan, math.inf, -math.inf], device=DEVICE).repeat(4)[:, None]
    logits = random_logits(len(asked), 300, torch.float32)
    logits = torch.where(torch.rand(logits.shape, device=DEVICE) <= share, value, logits)
    rows = torch.arange(len(asked))
    sampled = sample(logits, rows, rows, asked)
    assert bool(((sampled.tokens >= 0) & (sampled.tokens < 300)).all())
    assert sampled.last_tokens.tolist() == [*sampled.tokens.tolist(), UNWRITTEN]


def test_params_of_a_row() -> None:
    packed = RowParams(0.5, 20, 0.25, 0.125, (5 << 32) + 2**31, 2.0, -0.5, 0.25, 7).pack()
    assert packed[:6] == [0x3F000000, 20, 0x3E800000, 0x3E000000, -(2**31), 5]
    assert packed[6:10] == [0x40000000, 0xBF000000 - 2**32, 0x3E800000, 7]
    assert len(packed) == PARAM_FIELDS
    assert RowParams().pack()[6:10] == [0x3F800000, 0, 0, -1]
    assert RowParams(seed=-1).pack() == RowParams(seed=2**64 - 1).pack()


def draws(logits: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """Tokens drawn by the twin's noise, which `check_sampling` compares with the kernels'."""
    return (logits + noise(seeds[:, None], positions[:, None], torch.arange(len(logits)))).argmax(-1)


def assert_by_chance(observed: Tensor, expected: Tensor) -> None:
    """Chi-square; the seeds are fixed, so that it holds always or never."""
    statistic = float(((observed - expected) ** 2 / expected).sum())
    freedom = expected.numel() - 1
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom) + 5


@pytest.mark.parametrize("varied", ["seed", "position", "high half of the seed"])
def test_tokens_come_as_often_as_softmax_says(varied: str) -> None:
    """Over neighbouring seeds and positions; the rarest token comes thirty times."""
    logits = torch.linspace(0, -8, 24)
    count, one = torch.arange(DRAWS), torch.ones(DRAWS, dtype=torch.int64)
    seeds = {"seed": count, "position": 3 * one, "high half of the seed": count << 32}[varied]
    tokens = draws(logits, seeds, count if varied == "position" else 5 * one)
    assert_by_chance(tokens.bincount(minlength=24).double(), logits.double().softmax(-1) * DRAWS)


def test_a_large_vocabulary_is_drawn_from_evenly() -> None:
    tokens = draws(torch.zeros(1500), torch.arange(6000), torch.arange(1))
    assert_by_chance(tokens.bincount(minlength=1500).double(), torch.full((1500,), 4.0, dtype=torch.float64))


@pytest.mark.parametrize("apart", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 0), (0, 1, -1), (1 << 32, 0, 0)], ids=str)
def test_neighbours_have_nothing_in_common(apart: tuple[int, int, int]) -> None:
    """The noise of a seed, position and token, and of one a step away: pairs of eighths are equally frequent."""
    index = torch.arange(DRAWS)
    place = (index // 5000 + 9, index // 100 % 50 + 1, index % 100 + 1)
    first, second = noise(*place), noise(*(p + a for p, a in zip(place, apart, strict=True)))
    eighths = [(-torch.exp(-x)).exp().mul(8).long() for x in (first, second)]
    pairs = (8 * eighths[0] + eighths[1]).bincount(minlength=64)
    assert_by_chance(pairs.double(), torch.full((64,), DRAWS / 64, dtype=torch.float64))
