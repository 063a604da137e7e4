"""The engine's counters move by exactly what happened."""

import time

from bigram_engine import BigramEngine
from torch import Tensor

from headrace.core.sampling_params import SamplingParams
from headrace.wire.messages import StepOutput


def params(**kwargs: object) -> SamplingParams:
    return SamplingParams(**{"seed": 1, "max_tokens": 5, **kwargs})


def outputs(bigram: BigramEngine) -> list[StepOutput]:
    found = []
    while bigram.engine.has_work:
        output = bigram.engine.step()
        found += [] if output is None else [output]
    return found


def test_tokens_of_requests_that_end(bigram: BigramEngine) -> None:
    """A prompt counts once, however many sequences it has; output counts token by token."""
    bigram.add([1] * 10, params())
    bigram.add([2] * 20, params(n=3, max_tokens=7))
    bigram.add([3] * 4, params(), output_token_ids=[1, 2])
    steps = outputs(bigram)
    stats = bigram.engine.stats()
    assert stats.prompt_tokens == 10 + 20 + 6
    assert stats.generation_tokens == 5 + 3 * 7 + 3 == sum(len(list(step.rows())) for step in steps)
    assert stats.steps == len(steps)
    assert (stats.num_running, stats.num_waiting, stats.num_waiting_tokens) == (0, 0, 0)
    assert stats.num_free_blocks == stats.num_blocks == 256


def test_the_prefix_cache_is_counted_in_tokens_at_admission(bigram: BigramEngine) -> None:
    """Queries are what a request came with, hits the full blocks that were found; forks look nothing up."""
    bigram.one([5] * 20, params())
    bigram.add([5] * 20, params(n=2))
    bigram.add([6] * 9, params(prompt_logprobs=1))
    outputs(bigram)
    stats = bigram.engine.stats()
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (40, 16)


def test_without_a_prefix_cache_nothing_is_asked(table: Tensor) -> None:
    bigram = BigramEngine(table, prefix_caching=False)
    bigram.one([5] * 20, params())
    stats = bigram.engine.stats()
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (0, 0)


def test_aborted_requests(table: Tensor) -> None:
    """Tokens that were handed out stay counted; a prompt that was not computed to its end never was."""
    bigram = BigramEngine(table, max_num_seqs=2, budget=16)
    [decoding] = bigram.add([1] * 4, params(max_tokens=50))
    bigram.engine.step()
    bigram.engine.step()
    [prefilling] = bigram.add([2] * 100, params())
    [queued] = bigram.add([3] * 7, params())
    bigram.engine.step()
    stats = bigram.engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_waiting_tokens) == (2, 1, 7)
    bigram.engine.abort([decoding, prefilling, queued])
    stats = bigram.engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_waiting_tokens) == (0, 0, 0)
    assert (stats.prompt_tokens, stats.generation_tokens) == (4, 3)
    assert stats.num_free_blocks == stats.num_blocks


def test_preempted_requests(table: Tensor) -> None:
    """What is computed again counts as nothing new; each sequence says at its end how often it was preempted."""
    bigram = BigramEngine(table, max_num_seqs=8, num_blocks=9)
    for token in range(4):
        bigram.add([token] * 10, params(max_tokens=30))
    steps = outputs(bigram)
    stats = bigram.engine.stats()
    assert stats.num_preemptions > 0
    assert sum(count for step in steps for count in step.preemptions.values()) == stats.num_preemptions
    assert (stats.prompt_tokens, stats.generation_tokens) == (40, 120)
    assert stats.prefix_cache_queries == 40
    assert sum(step.num_tokens for step in steps) > 40 + 120 - 4
    last = {uid: number for number, step in enumerate(steps) for uid, _, finish, _ in step.rows() if finish}
    assert all(last[uid] == number for number, step in enumerate(steps) for uid in step.preemptions)


def test_sequences_of_one_prompt_wait_with_it(table: Tensor) -> None:
    """Those that will be forked wait for the one that computes their prompt, whose tokens count once."""
    bigram = BigramEngine(table, budget=8, max_num_seqs=8)
    bigram.add([1] * 20, params(n=4))
    stats = bigram.engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_waiting_tokens) == (0, 4, 20)
    bigram.engine.step()
    stats = bigram.engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_waiting_tokens) == (1, 3, 0)


def test_each_step_says_its_size_before_it_runs(table: Tensor) -> None:
    bigram = BigramEngine(table, budget=16)
    bigram.add([1] * 40, params(max_tokens=3))
    began: list[int] = []
    made = []
    while bigram.engine.has_work:
        output = bigram.engine.step(began.append)
        assert output is not None
        made.append(output.num_tokens)
    assert began == made == [16, 16, 8, 1, 1]


def test_queue_seconds_are_until_the_first_step(table: Tensor) -> None:
    """Once a sequence, with its first token: what waited behind another waited as long as that ran."""
    bigram = BigramEngine(table, max_num_seqs=1, budget=8)
    [first] = bigram.add([1] * 20, params())
    queued, *forked = bigram.add([2] * 20, params(n=2))
    began = time.monotonic()
    told: dict[int, float] = {}
    passed: dict[int, float] = {}
    while bigram.engine.has_work:
        output = bigram.engine.step()
        time.sleep(0.002)
        for uid, seconds in output.queue_seconds.items() if output else ():
            assert uid not in told
            told[uid], passed[uid] = seconds, time.monotonic() - began
    assert sorted(told) == sorted([first, queued, *forked])
    assert told[first] < passed[first]
    assert 0.002 * 5 < told[queued] < passed[queued]
    assert [told[uid] for uid in forked] == [told[queued]]  # their prompt began with it
