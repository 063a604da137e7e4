"""The engine on a device's rows, two steps in flight; its kernels are interpreted where there is no GPU."""

import random

import pytest
import torch
from bigram_engine import VOCAB_SIZE, BigramEngine
from torch import Tensor

from headrace.core.sampling_params import SamplingParams
from headrace.engine.run.device.build import device_runner
from headrace.engine.run.device.graphs import Graphs, Key, Work
from headrace.engine.run.device.runner import SAMPLE, DeviceRunner
from headrace.kernels.ops import LayerCache, StepBatch
from headrace.planner.step_sizes import graph_count


@pytest.fixture
def bigram(table: Tensor) -> BigramEngine:
    """An engine on the table, as on a GPU."""
    return BigramEngine(table, on_device=True, depth=2, max_num_seqs=6, budget=24, num_blocks=48)


def params(**kwargs: object) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 12, "temperature": 0.0, **kwargs})


def greedy(table: Tensor, token: int, count: int) -> list[int]:
    """The answer to a prompt that ends with `token`."""
    answer = [token]
    for _ in range(count):
        answer.append(int(table[answer[-1]].argmax()))
    return answer[1:]


def test_prompts_in_chunks_beside_others(bigram: BigramEngine, table: Tensor) -> None:
    """Lengths from one token to more than three steps hold, more of them than rows."""
    prompts = [[n % VOCAB_SIZE for n in range(start, start + length)] for start, length in
               zip(range(9), (1, 70, 8, 9, 33, 2, 16, 24, 5), strict=True)]  # fmt: skip
    uids = [bigram.add(prompt, params(max_tokens=4 + n))[0] for n, prompt in enumerate(prompts)]
    found = bigram.run()
    for n, (uid, prompt) in enumerate(zip(uids, prompts, strict=True)):
        assert found[uid].tokens == greedy(table, prompt[-1], 4 + n)


def test_forks_copy_the_block_that_they_share(bigram: BigramEngine, table: Tensor) -> None:
    uids = bigram.add([3, 4, 5], params(n=3, temperature=1.0, seed=5, max_tokens=20))
    found = bigram.run()
    assert len({tuple(found[uid].tokens) for uid in uids}) == 3


def test_a_stop_token_ends_a_sequence_whose_next_step_is_in_flight(bigram: BigramEngine, table: Tensor) -> None:
    answer = greedy(table, 7, 12)
    stop = answer[5]
    found = bigram.one([7], params(stop_token_ids=[stop]))
    assert found.tokens == answer[: answer.index(stop) + 1]
    assert (found.finish, found.stop_token) == ("stop", stop)


def test_what_a_request_asks_for_beyond_the_kernels(bigram: BigramEngine, table: Tensor) -> None:
    """Each beside a plain one, in one step."""
    plain = bigram.add([9], params())[0]
    biased = bigram.add([9], params(logit_bias={2: 100.0}))[0]
    allowed = bigram.add([9], params(allowed_token_ids=[6]))[0]
    shy = bigram.add([9], params(frequency_penalty=2.0, presence_penalty=2.0))[0]
    found = bigram.run()
    assert found[plain].tokens == greedy(table, 9, 12)
    assert found[biased].tokens == [2] * 12
    assert found[allowed].tokens == [6] * 12
    assert len(set(found[shy].tokens)) > len(set(found[plain].tokens))


def test_logprobs_of_prompt_and_answer(bigram: BigramEngine, table: Tensor) -> None:
    found = bigram.one([1, 2, 3], params(logprobs=2, prompt_logprobs=1, max_tokens=3))
    expected = table.log_softmax(-1)
    last = 3
    for token, entry in zip(found.tokens, found.logprobs, strict=True):
        assert entry[token].logprob == pytest.approx(float(expected[last, token]), abs=1e-5)
        last = token
    assert found.prompt_logprobs[0] is None
    for before, token, entry in zip([1, 2], [2, 3], found.prompt_logprobs[1:], strict=True):
        assert entry[token].logprob == pytest.approx(float(expected[before, token]), abs=1e-5)


def test_penalties_and_logprobs_are_those_of_a_cpu_under_preemption(table: Tensor) -> None:
    """Tokens are counted on the device, two steps in flight, and anew when a row is given again."""
    asked = {"repetition_penalty": 1.3, "frequency_penalty": 0.6, "presence_penalty": 0.4}
    few = BigramEngine(table, on_device=True, depth=2, max_num_seqs=6, budget=24, num_blocks=10, prefix_caching=False)
    answers = []
    for engine in (few, BigramEngine(table)):
        for n in range(6):
            engine.add([n, n + 1, n], params(max_tokens=20, logprobs=n or None, **(asked if n % 2 else {})))
        answers.append(engine.run())
    assert few.engine.stats().num_preemptions > 0
    for uid, expected in answers[1].items():
        assert answers[0][uid].tokens == expected.tokens
        for found, entry in zip(answers[0][uid].logprobs, expected.logprobs, strict=True):
            assert (found is None) == (entry is None) == (uid == 0)
            assert list(found or ()) == list(entry or ())
            for token, item in (entry or {}).items():
                assert found[token].logprob == pytest.approx(item.logprob, abs=1e-5)
                assert found[token].rank == item.rank


def test_the_same_seed_gives_the_same_tokens_alone_and_among_others(table: Tensor) -> None:
    def answer(others: int) -> list[int]:
        bigram = BigramEngine(table, on_device=True, depth=2)
        for n in range(others):
            bigram.add([n], params(temperature=1.3, seed=n))
        [uid] = bigram.add([4, 5], params(temperature=0.9, top_p=0.95, seed=77))
        return bigram.run()[uid].tokens

    assert answer(0) == answer(5)


def test_random_requests_and_aborts_leave_nothing(bigram: BigramEngine) -> None:
    """Under preemption too: the cache holds a third of what may run."""
    generator = random.Random(torch.seed())
    live: list[int] = []
    engine = bigram.engine
    for _ in range(9):
        prompt = [generator.randrange(VOCAB_SIZE) for _ in range(generator.randrange(1, 40))]
        live += bigram.add(
            prompt, params(temperature=1.0, max_tokens=generator.randrange(1, 12), n=generator.choice([1, 2]))
        )
        for _ in range(generator.randrange(3)):
            engine.step()
        if generator.random() < 0.3:
            engine.abort([generator.choice(live)])
    bigram.run()
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_free_blocks) == (0, 0, stats.num_blocks)


def test_an_interrupted_launch_does_not_mix_up_what_comes_after(
    bigram: BigramEngine, table: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message of the interrupted step is never received."""
    bigram.add([1, 2, 3], params())
    monkeypatch.setattr("headrace.engine.run.device.mailbox.receive_launch", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        bigram.run()
    monkeypatch.undo()
    bigram.engine.reset()
    assert bigram.one([9], params()).tokens == greedy(table, 9, 12)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_planner_counts_the_graphs_that_are_recorded(table: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Key] = []
    monkeypatch.setattr("headrace.engine.run.device.runner.Graphs", lambda: _Recorder(recorded))
    made: list[DeviceRunner] = []
    monkeypatch.setattr("bigram_engine.device_runner", lambda *args: made.append(device_runner(*args)) or made[0])
    BigramEngine(table, on_device=True, max_num_seqs=20, budget=80)
    made[0].capture()
    planned = graph_count(20, 80)
    assert len(recorded) == planned.passes + planned.samplings
    assert sum(kind == SAMPLE for kind, _ in recorded) == planned.samplings


class _Recorder:
    """In place of CUDA graphs, which only a GPU has: it notes what would be recorded."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    def capture(self, works: dict[Key, Work]) -> None:
        self._keys += works


@pytest.mark.parametrize("max_num_seqs", [1, 2, 20])
def test_a_captured_pass_serves_rows_of_both_kinds(
    table: Tensor, monkeypatch: pytest.MonkeyPatch, max_num_seqs: int
) -> None:
    """Whatever a step is made of, the graph of its size has attention for it."""
    bigram = BigramEngine(table, on_device=True, max_num_seqs=max_num_seqs)
    captured: dict[tuple[str, int], list[int]] = {}
    forward = bigram.model.forward

    def note(token_ids: Tensor, batch: StepBatch, caches: list[LayerCache]) -> Tensor:
        seen.append(batch.query_lens.tolist())
        return forward(token_ids, batch, caches)

    def capture(_: Graphs, works: dict[Key, Work]) -> None:
        for key, work in works.items():
            seen.clear()
            work()
            captured[key] = seen[0] if seen else []

    seen: list[list[int]] = []
    monkeypatch.setattr(bigram.model, "forward", note)
    monkeypatch.setattr(Graphs, "capture", capture)
    bigram.engine._runner.capture()
    passes = [lens for (kind, _), lens in captured.items() if kind == "pass"]
    assert passes
    assert all(min(lens) == 1 < max(lens) for lens in passes)
    assert all(set(lens) == {1} for (kind, _), lens in captured.items() if kind == "decode")
