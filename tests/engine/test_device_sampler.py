"""Sampling for a GPU, on one where there is one and interpreted elsewhere: what the kernels do not know of is right."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from live_bytes import LiveBytes
from torch import Tensor

from headrace.core.sampling_params import SamplingParams
from headrace.engine.request import Request
from headrace.engine.sample.device_sampler import DeviceSampler, Special
from headrace.engine.sched.plan import PlannedRow
from headrace.kernels.gpu.row_params import PARAM_FIELDS, pack_row_params
from headrace.planner.estimates import EDITED_BYTES, PENALTY_BYTES
from headrace.planner.step_sizes import EDITED_ROWS

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
VOCAB_SIZE = 40
NUM_ROWS = 8
PROMPT = [3, 4, 3]
SLACK_BYTES = 1 << 16
"""Places, rows and parameters, which do not grow with the vocabulary."""


@contextmanager
def no_waiting() -> Iterator[None]:
    """On a GPU, whatever makes the host wait for it is an error."""
    if DEVICE.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Steps:
    """A sampler, and the tensors that a runner has for it; nothing that was sampled is told to the requests."""

    def __init__(self, num_rows: int = NUM_ROWS, vocab_size: int = VOCAB_SIZE) -> None:
        self.sampler = DeviceSampler(num_rows, vocab_size, DEVICE)
        self.params = torch.zeros(num_rows, PARAM_FIELDS, dtype=torch.int32, device=DEVICE)
        self.last_tokens = torch.full((num_rows,), -1, dtype=torch.int32, device=DEVICE)
        self.free = list(range(num_rows))

    def admit(self, tokens: list[int] | None = None, **parameters: object) -> Request:
        """A request of its own seed on a row of its own."""
        more = {"bad_words_token_ids": parameters.pop("bad_words_token_ids", [])}
        params = SamplingParams(**{"temperature": 0.0, "min_tokens": 0, **parameters})
        eos = frozenset(params.stop_token_ids or ())
        request = Request(0, tokens or [*PROMPT], params, 99, eos, num_prompt=len(PROMPT), seed=7, **more)
        request.row = self.free.pop()
        with no_waiting():
            self.sampler.add(request)
        self.params[request.row] = torch.tensor(self.sampler.params_of(request), dtype=torch.int32)
        return request

    def run(
        self, logits: Tensor, requests: list[Request], known: int = len(PROMPT)
    ) -> tuple[list[int], Special | None]:
        """The tokens of a step in which each request has `known` tokens, whatever the host has read of them."""
        planned = [PlannedRow(request, known - 1, 1, known) for request in requests]
        rows = torch.tensor([request.row for request in requests], dtype=torch.int32, device=DEVICE)
        positions = torch.full_like(rows, known)
        tokens, on_device = torch.full_like(rows, -1), logits.to(DEVICE)
        where = (rows, positions, self.params, tokens, self.last_tokens)
        special = None
        with no_waiting():
            if self.sampler.is_special(planned):
                special = self.sampler.sample_special(on_device, planned, *where)
            else:
                self.sampler.sample(on_device, *where)
        assert torch.equal(self.last_tokens[rows.long()], tokens)
        assert torch.equal(on_device, logits.to(DEVICE)), "the logits were changed"
        return tokens.tolist(), special


@pytest.fixture
def steps() -> Steps:
    return Steps()


def random_logits(rows: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * 3


def test_params_of_a_request(steps: Steps) -> None:
    drawn = steps.admit(temperature=0.5, top_k=7, top_p=0.5, min_p=0.25)
    assert steps.sampler.params_of(drawn) == pack_row_params(0.5, 7, 0.5, 0.25, seed=7)
    everything = steps.admit(temperature=1.0, top_k=VOCAB_SIZE)
    assert steps.sampler.params_of(everything) == pack_row_params(1.0, 0, 1.0, 0.0, seed=7)
    assert steps.sampler.params_of(steps.admit(temperature=1e-6)) == pack_row_params(0.0, 0, 1.0, 0.0, seed=7)


def test_which_rows_are_special(steps: Steps) -> None:
    def is_special(known: int, **parameters: object) -> bool:
        request = steps.admit(**parameters)
        steps.free.append(request.row)  # the next one gets the same row
        return steps.sampler.is_special([PlannedRow(request, known - 1, 1, known)])

    for asked in (
        {"logit_bias": {1: 2.0}}, {"allowed_token_ids": [1]}, {"logprobs": 0}, {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5}, {"repetition_penalty": 1.5}, {"bad_words_token_ids": [[1, 2]]},
    ):  # fmt: skip
        assert is_special(50, **asked), asked
        assert not is_special(50), "the row's next request is not special"
    assert not is_special(50, temperature=0.7, top_k=4, top_p=0.5, min_p=0.1)
    assert is_special(6, min_tokens=4, stop_token_ids=[1])
    assert not is_special(7, min_tokens=4, stop_token_ids=[1])


def test_every_edit_in_one_step(steps: Steps) -> None:
    """Beside rows that the kernels do alone, which get the same tokens as without the others."""
    logits = random_logits(8)
    order = logits.argsort(-1, descending=True)
    ends = [int(order[4, 0])]
    word = [[9, int(order[5, 0])], [9, 9, int(order[5, 1])], [int(order[5, 2])]]
    plain, drawn = steps.admit(), steps.admit(temperature=1.0, top_k=9)
    alone = [steps.run(logits[i : i + 1], [request])[0][0] for i, request in ((0, plain), (6, drawn))]
    requests = [
        plain,
        steps.admit(logit_bias={int(order[1, 5]): 100.0}),
        steps.admit(allowed_token_ids=[int(order[2, 7]), int(order[2, 3])]),
        steps.admit([*PROMPT, int(order[3, 0])], presence_penalty=2.0, frequency_penalty=2.0),
        steps.admit(min_tokens=3, stop_token_ids=ends),
        steps.admit([*PROMPT, 8, 9], bad_words_token_ids=word),
        drawn,
        steps.admit(allowed_token_ids=[5, 6], logit_bias={5: -100.0}),
    ]
    logits[3, order[3, 0]] = logits[3, order[3, 1]] + 1
    tokens, _ = steps.run(logits, requests, known=5)
    again, _ = steps.run(logits[6:7], [drawn], known=5)
    expected = [alone[0], order[1, 5], order[2, 3], order[3, 1], order[4, 1], order[5, 1], again[0], 6]
    assert tokens == [int(token) for token in expected]
    tokens, _ = steps.run(logits[4:5], requests[4:5], known=6)
    assert tokens == ends


def test_penalties_follow_tokens_that_the_host_has_not_read(steps: Steps) -> None:
    """By the formulas, step by step, the prompt's tokens counted for repetition only."""
    asked = {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.7}
    output = [11, 12, 11]
    requests = [steps.admit(), steps.admit([*PROMPT, *output], **asked), steps.admit(), steps.admit(**asked)]
    logits = random_logits(4, seed=3) / 3
    outputs = [[*output], []]
    for step in range(12):
        tokens, _ = steps.run(logits, requests, known=6 + step)
        for row, so_far in zip((1, 3), outputs, strict=True):
            assert tokens[row] == penalized(logits[row], so_far), f"step {step}"
            so_far.append(tokens[row])
    assert len(set(outputs[0])) > 4


def penalized(logits: Tensor, output: list[int]) -> int:
    x = logits.clone()
    for token in {*PROMPT, *output}:
        x[token] = x[token] / 1.3 if x[token] > 0 else x[token] * 1.3
    for token, count in Counter(output).items():
        x[token] -= 0.4 * count + 0.7
    return int(x.argmax())


def test_a_row_that_is_used_again_starts_anew(steps: Steps) -> None:
    """Counts and allowed tokens of the request that had the row before are gone."""
    logits = random_logits(1)
    best = int(logits.argmax())
    first = steps.admit([*PROMPT, best, best], presence_penalty=2.0, frequency_penalty=2.0)
    logits[0, best] += 1
    steps.run(logits, [first])
    steps.free.append(first.row)
    second = steps.admit(presence_penalty=-2.0)
    assert steps.run(logits, [second])[0] == [best]
    steps.free.append(second.row)
    assert steps.run(logits, [steps.admit(logprobs=1)])[0] == [best]


def test_logprobs_are_those_of_the_raw_logits(steps: Steps) -> None:
    logits = random_logits(4)
    requests = [
        steps.admit(logprobs=2, logit_bias={1: 100.0}),
        steps.admit(),
        steps.admit(temperature=1.0, logprobs=0),
        steps.admit(logprobs=-1),
    ]
    tokens, special = steps.run(logits, requests)
    assert special is not None
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    found = special.read_logprobs()
    assert {i: len(entry) for i, entry in found.items()} == {0: 3, 2: 1, 3: VOCAB_SIZE}
    expected = logits.log_softmax(-1)
    for i, entry in found.items():
        assert next(iter(entry)) == tokens[i]
        for token, item in entry.items():
            assert item.logprob == pytest.approx(float(expected[i, token]), abs=1e-5)
            assert item.rank == int((expected[i] > expected[i, token]).sum()) + 1
    assert tokens[0] == 1
    assert sum(math.exp(item.logprob) for item in found[3].values()) == pytest.approx(1, abs=1e-4)


def test_nothing_is_read_for_rows_without_logprobs(steps: Steps) -> None:
    _, special = steps.run(random_logits(1), [steps.admit(logit_bias={1: 1.0})])
    assert special is not None and special.read_logprobs() == {}


@pytest.mark.parametrize("asked", [{"repetition_penalty": 1.3, "logprobs": 2}, {"logprobs": -1}], ids=str)
def test_special_rows_take_the_memory_that_is_planned(asked: dict[str, object]) -> None:
    """More of them than are edited at a time, each as if it were alone."""
    num_rows, vocab_size = 2 * EDITED_ROWS + 6, 1000
    logits = torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(4))
    with LiveBytes() as live:
        many, alone = Steps(num_rows, vocab_size), Steps(num_rows, vocab_size)
        at_rest = live.now
        tokens, special = many.run(logits, [many.admit(**asked) for _ in range(num_rows)])
        planned = vocab_size * (num_rows * PENALTY_BYTES.value + EDITED_ROWS * EDITED_BYTES.value)
        host = vocab_size * num_rows * (4 + 8) if asked["logprobs"] == -1 and DEVICE.type == "cpu" else 0
        assert live.peak - at_rest < planned + host + SLACK_BYTES
    assert special is not None and len(special.read_logprobs()) == num_rows
    for row in (0, EDITED_ROWS, num_rows - 1):
        assert alone.run(logits[row : row + 1], [alone.admit(**asked)])[0] == [tokens[row]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_16_bits_are_edited_in_32(steps: Steps, dtype: torch.dtype) -> None:
    """A bias that 16 bits could not hold beside the logit decides."""
    logits = torch.full((1, VOCAB_SIZE), -50.0)
    logits[0, 8] = logits[0, 20] = 50.0
    request = steps.admit(logit_bias={20: 0.01})
    assert steps.run(logits.to(dtype), [request])[0] == [20]
