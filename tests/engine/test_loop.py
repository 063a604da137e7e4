"""The engine's loop: it shows that it moves, and tells its counters when they have changed."""

import time

import pytest
from bigram_engine import BigramEngine
from torch import Tensor

from headrace.core.sampling_params import SamplingParams
from headrace.engine.loop import STATS_SECONDS, EngineLoop
from headrace.wire.messages import (
    AbortRequests,
    AddRequest,
    Command,
    EngineFailed,
    EngineStats,
    Event,
    RequestFailed,
    Shutdown,
    StepOutput,
)


class Turns:
    """An inbox that holds the given commands turn by turn, and then asks the loop to stop."""

    def __init__(self, *turns: list[Command], pause: float = 0.0) -> None:
        self._turns = iter(turns)
        self._pause = pause

    def drain(self, *, wait: bool) -> list[Command]:
        time.sleep(self._pause)
        return next(self._turns, [Shutdown()])


def add(uid: int, prompt: int = 4, **params: object) -> AddRequest:
    return AddRequest([uid], [uid] * prompt, SamplingParams(**{"max_tokens": 50, "seed": 1, **params}))


def run(bigram: BigramEngine, inbox: Turns) -> tuple[list[Event], list[int]]:
    events: list[Event] = []
    beats: list[int] = []
    assert EngineLoop(bigram.engine, inbox, events.append, beats.append).run()
    return events, beats


def stats(events: list[Event]) -> list[tuple[int, int]]:
    return [(each.num_running, each.num_waiting) for each in events if isinstance(each, EngineStats)]


def test_each_turn_beats_with_the_tokens_of_its_step(table: Tensor) -> None:
    bigram = BigramEngine(table, budget=8)
    _, beats = run(bigram, Turns([add(1, 12)], [], [add(2)], []))
    assert beats == [8, 0, 4, 0, 5, 0, 2, 0]


def test_a_request_that_comes_or_goes_is_told_at_once(bigram: BigramEngine) -> None:
    """Also when nothing is left to do after an abort: whoever reads the counters sees no request that is gone."""
    events, _ = run(bigram, Turns([add(1)], [add(2)], [AbortRequests([1])], [], [AbortRequests([2])], [], pause=0.03))
    assert stats(events) == [(0, 0), (1, 0), (2, 0), (1, 0), (0, 0)]
    assert events[-1].num_free_blocks == events[-1].num_blocks
    assert events[-1].generation_tokens == sum(len(list(e.rows())) for e in events if isinstance(e, StepOutput))


def test_under_load_and_while_idle_nothing_is_told_again(bigram: BigramEngine) -> None:
    began = time.monotonic()
    events, _ = run(bigram, Turns([], [], [add(1, max_tokens=200)], *[[]] * 100))
    assert len(stats(events)) <= 3 + (time.monotonic() - began) / STATS_SECONDS
    events, _ = run(bigram, Turns([AbortRequests([1])], [], [], [AbortRequests([9])], []))
    assert stats(events) == [(1, 0), (0, 0)]


def test_what_there_is_is_told_before_there_is_any_work(bigram: BigramEngine) -> None:
    [told] = run(bigram, Turns([], []))[0]
    assert isinstance(told, EngineStats)
    assert told.num_free_blocks == told.num_blocks > 0


def test_a_request_that_is_refused_fails_alone(bigram: BigramEngine) -> None:
    wrong = AddRequest([2], [1], SamplingParams(max_tokens=5, seed=1), output_token_ids=[1] * 5)
    events, _ = run(bigram, Turns([add(1, max_tokens=3), wrong], [], [], []))
    [failed] = [event for event in events if isinstance(event, RequestFailed)]
    assert (failed.uids, failed.status, failed.param) == ([2], 400, "output_token_ids")
    assert stats(events)[-1] == (0, 0) and events[-1].generation_tokens == 3


def test_a_step_that_fails_ends_the_loop_with_its_reason(bigram: BigramEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(bigram.model, "logits", fail)
    events: list[Event] = []
    assert not EngineLoop(bigram.engine, Turns([add(1)], []), events.append).run()
    assert isinstance(events[-1], EngineFailed) and "MemoryError: no more" in events[-1].what
