"""Aborting frees everything, in whatever state a sequence is."""

import torch
from bigram_engine import VOCAB_SIZE, BigramEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.sampling_params import SamplingParams
from headrace.engine.request import State

TABLE = torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(7)) * 2

requests = st.fixed_dictionaries(
    {
        "prompt": st.integers(1, 60),
        "told": st.integers(0, 12),
        "n": st.integers(1, 4),
        "max_tokens": st.integers(13, 60),
        "pause": st.integers(0, 5),
    }
)


def is_clean(bigram: BigramEngine, max_num_seqs: int) -> bool:
    scheduler, stats = bigram.engine.scheduler, bigram.engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_waiting_tokens) == (0, 0, 0)
    return (
        stats.num_free_blocks == stats.num_blocks
        and scheduler._requests == {}
        and sorted(scheduler._free_rows) == list(range(max_num_seqs))
    )


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(requests, min_size=1, max_size=6),
    num_blocks=st.integers(16, 40),
    max_num_seqs=st.integers(1, 6),
    depth=st.integers(1, 2),
    after=st.integers(0, 12),
    order=st.randoms(use_true_random=False),
)
def test_everything_aborted_at_once_leaves_nothing(requests, num_blocks, max_num_seqs, depth, after, order):
    """Queued, prefilling in chunks, decoding, held for a fork, forked, preempted, continued: all are given back, at
    the latest with the step in flight."""
    bigram = BigramEngine(TABLE, max_num_seqs=max_num_seqs, budget=16, depth=depth, num_blocks=num_blocks)
    uids: list[int] = []
    for each in requests:
        told = [5] * each["told"] if each["n"] == 1 else []
        params = SamplingParams(n=each["n"], max_tokens=each["max_tokens"], seed=1)
        uids += bigram.add([each["prompt"] % VOCAB_SIZE] * each["prompt"], params, output_token_ids=told)
        for _ in range(each["pause"]):
            bigram.engine.step() if bigram.engine.has_work else None
    for _ in range(after):
        bigram.engine.step() if bigram.engine.has_work else None
    order.shuffle(uids)
    for uid in uids:
        bigram.engine.abort([uid])
    while bigram.engine.has_work:
        output = bigram.engine.step()
        assert output is None or not output.uids
    assert is_clean(bigram, max_num_seqs)


def test_each_state_is_met_and_left(table):
    """One sequence at a time is aborted in each state that there is; with one step at a time it is gone at once."""
    met: set[tuple[State, bool]] = set()
    for steps in range(0, 40, 5):
        for victim in range(6):
            bigram = BigramEngine(table, max_num_seqs=3, budget=8, num_blocks=8)
            params = SamplingParams(max_tokens=30, seed=1)
            uids = bigram.add([1] * 4, params) + bigram.add([2] * 20, SamplingParams(n=3, max_tokens=30, seed=1))
            uids += bigram.add([3] * 30, params) + bigram.add([4] * 9, params)
            for _ in range(steps):
                bigram.engine.step()
            request = bigram.engine.scheduler._requests.get(uids[victim])
            if request is not None:
                met.add((request.state, request.num_preemptions > 0))
                bigram.engine.abort([request.uid])
                assert request.blocks == [] and request.uid not in bigram.engine.scheduler._requests
            bigram.run()
            assert is_clean(bigram, 3)
    assert {(State.HELD, False), (State.WAITING, False), (State.RUNNING, False), (State.WAITING, True)} <= met
