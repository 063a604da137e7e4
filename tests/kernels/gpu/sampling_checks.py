"""The differential test of sampling: the kernels against the definition, on fresh logits and poisoned memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from gpu_cases import DEVICE
from sampling_twin import Asked, kept, penalized, scores
from torch import Tensor

from headrace.kernels.gpu.row_params import MOST_DESCRIBED, NO_DESCRIPTION, RowParams
from headrace.kernels.gpu.sampling import sample_launches
from headrace.kernels.gpu.sampling_workspace import COUNTED, IN_PROMPT, empty_workspace

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
PENALIZED = [
    Asked(0.0, repetition=1.7),
    Asked(0.0, frequency=0.6, described=4),
    Asked(0.0, presence=-1.5),
    Asked(1.0, seed=1, repetition=0.6, frequency=-0.3, presence=1.1),
    Asked(0.7, 12, 0.9, seed=2, repetition=1.4, frequency=0.2, presence=0.5, described=MOST_DESCRIBED),
    Asked(1.2, top_p=0.7, seed=3, presence=2.0),
    Asked(0.9, min_p=0.05, seed=4, frequency=0.1),
]
DESCRIBED = [
    Asked(0.0, described=0),
    Asked(seed=1, described=5),
    Asked(0.6, 20, 0.95, seed=2, described=1),
    Asked(3.0, seed=3, described=MOST_DESCRIBED),
]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What sampling wrote, on the CPU; `last_tokens` and `seen` have one row more than there are requests."""

    tokens: Tensor
    last_tokens: Tensor
    seen: Tensor
    descriptions: Tensor


def random_logits(rows: int, vocab_size: int, dtype: torch.dtype, spread: float = 3.0) -> Tensor:
    """Rows that are farther apart than they are wide."""
    return (torch.randn(rows, vocab_size + 16, device=DEVICE) * spread).to(dtype)[:, :vocab_size]


def check_random_rows(asked: Sequence[Asked], vocab_size: int, spread: float = 1.0) -> None:
    """`check_sampling` of fresh logits."""
    check_sampling(random_logits(len(asked), vocab_size, torch.float32, spread), asked)


def random_seen(rows: int, vocab_size: int) -> Tensor:
    """Of each token nothing, or that the prompt has it, or a count, or both; now and then all that can be counted."""
    counts = torch.randint(0, 4, (rows, vocab_size)) * torch.randint(0, 2, (rows, vocab_size))
    counts = torch.where(torch.rand(rows, vocab_size) < 0.01, COUNTED, counts)
    return (counts + IN_PROMPT * torch.randint(0, 2, (rows, vocab_size))).to(torch.int16)


def check_sampling(logits: Tensor, asked: Sequence[Asked]) -> None:
    """One row a request, in a random order of row ids, with padding between; whatever is not a row's stays."""
    padding = len(asked) // 3 + 1
    order = torch.randperm(len(asked) + padding)
    rows = torch.where(order < len(asked), order, -1)
    positions = torch.randint(0, 40_000, (len(rows),))
    seen = random_seen(len(asked) + 1, logits.shape[1])
    sampled = sample(logits[rows.clamp_min(0).to(DEVICE)], rows, positions, asked, seen)
    for i, row in enumerate(rows.tolist()):
        if row < 0:
            assert_untouched(sampled, i)
            continue
        token, before = int(sampled.tokens[i]), seen[row].int().to(DEVICE)
        x = penalized(logits[row], asked[row], before < 0, before & COUNTED)
        assert_sampled(token, x, asked[row], int(positions[i]))
        assert token == sampled.last_tokens[row]
        assert_counted(sampled.seen[row], seen[row], token, asked[row])
        assert_described(sampled.descriptions[i], logits[row].float().cpu(), token, asked[row])
    assert sampled.last_tokens[-1] == UNWRITTEN
    assert torch.equal(sampled.seen[-1], seen[-1])


def sample(
    logits: Tensor, rows: Tensor, positions: Tensor, asked: Sequence[Asked], seen: Tensor | None = None
) -> Sampled:
    """Tokens of the rows, of which nothing was seen if `seen` is not given."""
    packed = [
        RowParams(a.temperature, a.top_k, a.top_p, a.min_p, a.seed, a.repetition, a.frequency, a.presence, a.described)
        for a in asked
    ]
    params = torch.tensor([p.pack() for p in packed], dtype=torch.int32, device=DEVICE)
    tokens, last_tokens = (
        torch.full((n,), UNWRITTEN, dtype=torch.int32, device=DEVICE) for n in (len(rows), len(asked) + 1)
    )
    seen = torch.zeros(len(asked) + 1, logits.shape[1], dtype=torch.int16) if seen is None else seen
    on_device, workspace = seen.to(DEVICE, copy=True), empty_workspace(len(rows), logits.shape[1], DEVICE)
    workspace.descriptions.fill_(UNWRITTEN)
    where, when = (column.to(DEVICE, torch.int32) for column in (rows, positions))
    for launch in sample_launches(logits, where, when, params, on_device, tokens, last_tokens, workspace):
        launch.run()
    return Sampled(tokens.cpu(), last_tokens.cpu(), on_device.cpu(), workspace.descriptions.cpu())


def assert_untouched(sampled: Sampled, index: int) -> None:
    """Nothing was written for the step's padding."""
    assert sampled.tokens[index] == UNWRITTEN
    assert set(sampled.descriptions[index].tolist()) == {UNWRITTEN}


def assert_counted(after: Tensor, before: Tensor, token: int, asked: Asked) -> None:
    """The token alone was counted, and only where there is a penalty."""
    expected = before.clone()
    if asked.has_penalties and int(before[token]) & COUNTED < COUNTED:
        expected[token] += 1
    assert torch.equal(after, expected)


def assert_described(description: Tensor, logits: Tensor, token: int, asked: Asked) -> None:
    """The log probabilities of the logits as they came; equally likely tokens in the order of their ids."""
    if asked.described == NO_DESCRIPTION:
        assert set(description.tolist()) == {UNWRITTEN}
        return
    most = asked.described
    ids, told = description[3:].view(2, MOST_DESCRIBED)
    order = logits.sort(descending=True, stable=True).indices[:most]
    assert [int(description[0]), int(description[2])] == [token, int((logits > logits[token]).sum()) + 1]
    assert ids[:most].tolist() == order.tolist()
    values = torch.cat([description[1:2], told[:most]]).view(torch.float32)
    exact = logits.log_softmax(-1)[torch.cat([torch.tensor([token]), order])]
    torch.testing.assert_close(values, exact, rtol=ROUNDING, atol=ROUNDING)
    assert set(ids[most:].tolist() + told[most:].tolist()) <= {UNWRITTEN}


def assert_sampled(token: int, logits: Tensor, asked: Asked, position: int) -> None:
    """The token is one that may be kept, and no token that must be kept has a better score."""
    if asked.temperature == 0:
        assert logits[token] >= logits.max() - (ROUNDING if asked.has_penalties else 0.0)
        assert asked.has_penalties or token == int((logits == logits.max()).nonzero()[0])
        return
    assert kept(logits, asked, ROUNDING)[token]
    score = scores(logits, asked, position)
    best = score[kept(logits, asked, -ROUNDING)].max()
    assert score[token] >= best - ROUNDING * (10 + best.abs())
