"""Sampling for a GPU, on one where there is one and interpreted elsewhere: what the kernels do not know of is right."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from live_bytes import LiveBytes
from torch import Tensor

from headrace.core.sampling_params import SamplingParams
from headrace.engine.request import Request
from headrace.engine.sample.device_sampler import DeviceSampler, StepDetails
from headrace.engine.sched.plan import PlannedRow
from headrace.kernels.gpu.row_params import MOST_DESCRIBED, PARAM_FIELDS, RowParams
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
    ) -> tuple[list[int], StepDetails | None]:
        """The tokens of a step in which each request has `known` tokens, whatever the host has read of them."""
        planned = [PlannedRow(request, known - 1, 1, known) for request in requests]
        rows = torch.tensor([request.row for request in requests], dtype=torch.int32, device=DEVICE)
        positions = torch.full_like(rows, known)
        tokens, on_device = torch.full_like(rows, -1), logits.to(DEVICE)
        where = (rows, positions, self.params, tokens, self.last_tokens)
        with no_waiting():
            if self.sampler.is_special(*columns(planned)):
                details = self.sampler.sample_special(on_device, planned, *where)
            else:
                self.sampler.sample(on_device, *where)
                details = self.sampler.details(columns(planned)[0])
        assert torch.equal(self.last_tokens[rows.long()], tokens)
        assert torch.equal(on_device, logits.to(DEVICE)), "the logits were changed"
        return tokens.tolist(), details


def columns(planned: list[PlannedRow]) -> tuple[np.ndarray, np.ndarray]:
    """The rows and how many tokens each has."""
    return np.array([row.request.row for row in planned], np.int32), np.array([row.known for row in planned], np.int32)


@pytest.fixture
def steps() -> Steps:
    return Steps()


def random_logits(rows: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * 3


def test_params_of_a_request(steps: Steps) -> None:
    drawn = steps.admit(temperature=0.5, top_k=7, top_p=0.5, min_p=0.25)
    assert steps.sampler.params_of(drawn) == RowParams(0.5, 7, 0.5, 0.25, seed=7).pack()
    everything = steps.admit(temperature=1.0, top_k=VOCAB_SIZE)
    assert steps.sampler.params_of(everything) == RowParams(1.0, seed=7).pack()
    assert steps.sampler.params_of(steps.admit(temperature=1e-6)) == RowParams(0.0, seed=7).pack()
    shy = steps.admit(temperature=1.0, repetition_penalty=1.5, frequency_penalty=0.5, presence_penalty=-0.25)
    assert steps.sampler.params_of(shy) == RowParams(1.0, 0, 1.0, 0.0, 7, 1.5, 0.5, -0.25).pack()
    for asked, described in ((0, 0), (MOST_DESCRIBED, MOST_DESCRIBED), (MOST_DESCRIBED + 1, -1), (-1, -1)):
        told = steps.admit(logprobs=asked)
        assert steps.sampler.params_of(told) == RowParams(0.0, seed=7, described=described).pack()
        steps.free.append(told.row)


def test_which_rows_are_special(steps: Steps) -> None:
    def is_special(known: int, **parameters: object) -> bool:
        request = steps.admit(**parameters)
        steps.free.append(request.row)  # the next one gets the same row
        return steps.sampler.is_special(*columns([PlannedRow(request, known - 1, 1, known)]))

    for asked in (
        {"logit_bias": {1: 2.0}}, {"allowed_token_ids": [1]}, {"bad_words_token_ids": [[1, 2]]}, {"logprobs": -1},
        {"logprobs": MOST_DESCRIBED + 1},
    ):  # fmt: skip
        assert is_special(50, **asked), asked
        assert not is_special(50), "the row's next request is not special"
    assert not is_special(50, temperature=0.7, top_k=4, top_p=0.5, min_p=0.1)
    for asked in (
        {"logprobs": 0}, {"logprobs": MOST_DESCRIBED}, {"presence_penalty": 0.5}, {"frequency_penalty": 0.5},
        {"repetition_penalty": 1.5},
    ):  # fmt: skip
        assert not is_special(50, **asked), asked
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
    outputs: dict[int, list[int]] = {1: [11, 12, 11], 3: [], 4: []}
    logits = random_logits(5, seed=3) / 3
    best = int(logits[4].argmax())
    requests = [steps.admit(), steps.admit([*PROMPT, *outputs[1]], **asked), steps.admit(), steps.admit(**asked)]
    requests.append(steps.admit(logit_bias={best: -0.5}, **asked))
    biased = logits.clone()
    biased[4, best] -= 0.5
    for step in range(12):
        num_rows = 4 + step % 2  # every other step has a row that the kernels alone do not suffice for
        tokens, _ = steps.run(logits[:num_rows], requests[:num_rows], known=6 + step)
        for row, so_far in outputs.items():
            if row < num_rows:
                assert tokens[row] == penalized(biased[row], so_far), f"step {step}"
                so_far.append(tokens[row])
    assert len(set(outputs[1])) > 4


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


@pytest.mark.parametrize("whole", [False, True], ids=["by the kernels", "beside the whole vocabulary"])
def test_logprobs_are_those_of_the_raw_logits(steps: Steps, whole: bool) -> None:
    """Whatever is sampled before they are read."""
    logits = random_logits(5)
    asked = {"repetition_penalty": 1.5, "frequency_penalty": 1.0, "presence_penalty": 1.0}
    requests = [
        steps.admit([*PROMPT, int(logits[0].argmax())], logprobs=2, **asked),
        steps.admit(),
        steps.admit(temperature=1.0, logprobs=0),
        steps.admit(logprobs=MOST_DESCRIBED),
        steps.admit(logprobs=-1, logit_bias={1: 100.0}),
    ][: 5 if whole else 4]
    tokens, details = steps.run(logits[: len(requests)], requests)
    steps.run(random_logits(len(requests), seed=2), requests, known=4)
    assert details is not None
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    found = details.read_logprobs()
    assert found.keys() == {0, 2, 3, 4} - ({4} if not whole else set())
    expected = logits.log_softmax(-1)
    for i, entry in found.items():
        most = expected[i].argsort(descending=True)[: {0: 2, 2: 0, 3: MOST_DESCRIBED, 4: VOCAB_SIZE}[i]]
        assert list(entry) == list(dict.fromkeys([tokens[i], *most.tolist()]))
        for token, item in entry.items():
            assert item.logprob == pytest.approx(float(expected[i, token]), abs=1e-5)
            assert item.rank == int((expected[i] > expected[i, token]).sum()) + 1
    assert not whole or tokens[4] == 1


def test_nothing_is_read_for_rows_without_logprobs(steps: Steps) -> None:
    _, details = steps.run(random_logits(1), [steps.admit(logit_bias={1: 1.0})])
    assert details is not None and details.read_logprobs() == {}
    asked = steps.admit(logprobs=2)
    steps.free.append(asked.row)
    assert steps.run(random_logits(1), [steps.admit()])[1] is None


def test_tokens_are_counted_anew_after_a_preemption(steps: Steps) -> None:
    """Of one that the prompt has too, at most as many as an int16 holds."""
    often, other = PROMPT[0], 20
    asked = {"frequency_penalty": 0.001, "repetition_penalty": 2.0}
    request = steps.admit([*PROMPT, *[often] * 40_000], **asked)
    steps.free.append(request.row)
    request = steps.admit(request.tokens, **asked)
    logits = torch.full((1, VOCAB_SIZE), -200.0)
    logits[0, other] = -3.0
    for height, expected in ((60.0, often), (59.0, other)):  # half of it, less 32.767
        logits[0, often] = height
        assert steps.run(logits, [request])[0] == [expected]


@pytest.mark.parametrize("asked", [{"repetition_penalty": 1.3, "logit_bias": {1: 0.1}}, {"logprobs": -1}], ids=str)
def test_special_rows_take_the_memory_that_is_planned(asked: dict[str, object]) -> None:
    """More of them than are edited at a time, each as if it were alone."""
    num_rows, vocab_size = 2 * EDITED_ROWS + 6, 1000
    logits = torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(4))
    with LiveBytes() as live:
        many, alone = Steps(num_rows, vocab_size), Steps(num_rows, vocab_size)
        at_rest = live.now - int(num_rows * vocab_size * PENALTY_BYTES.value)
        tokens, details = many.run(logits, [many.admit(**asked) for _ in range(num_rows)])
        planned = vocab_size * (num_rows * PENALTY_BYTES.value + EDITED_ROWS * EDITED_BYTES.value)
        host = vocab_size * num_rows * (4 + 8) if "logprobs" in asked and DEVICE.type == "cpu" else 0
        assert live.peak - at_rest < planned + host + SLACK_BYTES
    assert details is not None and len(details.read_logprobs()) == (num_rows if "logprobs" in asked else 0)
    for row in (0, EDITED_ROWS, num_rows - 1):
        assert alone.run(logits[row : row + 1], [alone.admit(**asked)])[0] == [tokens[row]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_16_bits_are_edited_in_32(steps: Steps, dtype: torch.dtype) -> None:
    """A bias that 16 bits could not hold beside the logit decides."""
    logits = torch.full((1, VOCAB_SIZE), -50.0)
    logits[0, 8] = logits[0, 20] = 50.0
    request = steps.admit(logit_bias={20: 0.01})
    assert steps.run(logits.to(dtype), [request])[0] == [20]
