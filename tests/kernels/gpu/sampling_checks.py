"""The differential test of sampling: the kernels against the definition, on fresh logits and poisoned memory."""

from collections.abc import Sequence

import torch
from gpu_cases import DEVICE
from sampling_twin import Asked, kept, scores
from torch import Tensor

from headrace.kernels.gpu.row_params import pack_row_params
from headrace.kernels.gpu.sampling import sample_launches
from headrace.kernels.gpu.sampling_workspace import empty_workspace

UNWRITTEN = -7
ROUNDING = 1e-5
MIXTURE = [
    Asked(temperature=0.0),
    Asked(seed=1),
    Asked(0.6, 20, 0.95, seed=-2),
    Asked(1.3, top_p=0.9, seed=2**63),
    Asked(0.8, top_k=5, seed=4),
    Asked(2.0, min_p=0.2, seed=5),
    Asked(1.0, 50, 0.5, 0.01, seed=6),
    Asked(1.0, top_p=0.05, seed=7),
    Asked(1.0, top_k=1, seed=8),
    Asked(0.01, top_p=0.99, seed=9),
]


def random_logits(rows: int, vocab_size: int, dtype: torch.dtype, spread: float = 3.0) -> Tensor:
    """Rows that are farther apart than they are wide."""
    return (torch.randn(rows, vocab_size + 16, device=DEVICE) * spread).to(dtype)[:, :vocab_size]


def check_random_rows(asked: Sequence[Asked], vocab_size: int, spread: float = 1.0) -> None:
    """`check_sampling` of fresh logits."""
    check_sampling(random_logits(len(asked), vocab_size, torch.float32, spread), asked)


def check_sampling(logits: Tensor, asked: Sequence[Asked]) -> None:
    """One row a request, in a random order of row ids, with padding between; whatever is not a row's stays."""
    padding = len(asked) // 3 + 1
    order = torch.randperm(len(asked) + padding)
    rows = torch.where(order < len(asked), order, -1)
    positions = torch.randint(0, 40_000, (len(rows),))
    tokens, last_tokens = sample(logits[rows.clamp_min(0).to(DEVICE)], rows, positions, asked)
    for i, row in enumerate(rows.tolist()):
        if row >= 0:
            assert_sampled(int(tokens[i]), logits[row].float(), asked[row], int(positions[i]))
            assert tokens[i] == last_tokens[row]
    assert set(tokens[rows < 0].tolist()) <= {UNWRITTEN}
    assert last_tokens[-1] == UNWRITTEN


def sample(logits: Tensor, rows: Tensor, positions: Tensor, asked: Sequence[Asked]) -> tuple[Tensor, Tensor]:
    """`tokens` and `last_tokens`, which has one row more than there are requests, on the CPU."""
    packed = [pack_row_params(a.temperature, a.top_k, a.top_p, a.min_p, a.seed) for a in asked]
    params = torch.tensor(packed, dtype=torch.int32, device=DEVICE)
    tokens, last_tokens = (
        torch.full((n,), UNWRITTEN, dtype=torch.int32, device=DEVICE) for n in (len(rows), len(asked) + 1)
    )
    workspace = empty_workspace(len(rows), logits.shape[1], DEVICE)
    where, when = (column.to(DEVICE, torch.int32) for column in (rows, positions))
    for launch in sample_launches(logits, where, when, params, tokens, last_tokens, workspace):
        launch.run()
    return tokens.cpu(), last_tokens.cpu()


def assert_sampled(token: int, logits: Tensor, asked: Asked, position: int) -> None:
    """The token is one that may be kept, and no token that must be kept has a better score."""
    if asked.temperature == 0:
        assert token == int((logits == logits.max()).nonzero()[0])
        return
    assert kept(logits, asked, ROUNDING)[token]
    score = scores(logits, asked, position)
    best = score[kept(logits, asked, -ROUNDING)].max()
    assert score[token] >= best - ROUNDING * (10 + best.abs())
