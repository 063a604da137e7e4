"""The fake engine: its counters are exact, and it fails as it is told to."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from headrace.core.sampling_params import SamplingParams
from headrace.testing.fake_engine import NUM_BLOCKS, FakeEngine, Script
from headrace.wire.channel import EngineChannel
from headrace.wire.messages import (
    AbortRequests,
    AddRequest,
    EngineFailed,
    EngineStats,
    Event,
    Ready,
    Shutdown,
    StepOutput,
)


def add(uid: int, prompt: int = 10, n: int = 1, **fields: object) -> AddRequest:
    params = SamplingParams(n=n, max_tokens=fields.pop("max_tokens", 50))
    return AddRequest(list(range(uid, uid + n)), [7] * prompt, params, **fields)


def steps(engine: FakeEngine) -> list[StepOutput]:
    made = []
    while engine.has_work:
        began = engine.begin()
        made.append(engine.step())
        assert made[-1].num_tokens == began
    return made


def tokens(made: list[StepOutput], uid: int) -> list[int]:
    return [token for step in made for each, token, _, _ in step.rows() if each == uid]


def test_counters_move_by_exactly_what_happened() -> None:
    engine = FakeEngine(Script(token_ids=[11, 12, 13], max_num_seqs=2, preemptions=3))
    for command in (add(1), add(2, 20, n=2), add(4, max_tokens=2)):
        engine.handle(command)
    waiting = engine.stats()
    assert (waiting.num_running, waiting.num_waiting, waiting.num_waiting_tokens) == (0, 4, 60)
    engine.begin()
    begun = engine.stats()
    assert (begun.num_running, begun.num_waiting, begun.num_waiting_tokens) == (2, 2, 30)
    assert begun.num_free_blocks == NUM_BLOCKS - 1 - 2
    made = steps(engine)
    assert tokens(made, 1) == [11, 12, 13, 2] and tokens(made, 4) == [11, 12]
    ended = engine.stats()
    assert (ended.prompt_tokens, ended.generation_tokens) == (40, 4 + 8 + 2)
    assert (ended.prefix_cache_queries, ended.prefix_cache_hits) == (60, 30)
    assert (ended.num_running, ended.num_waiting, ended.num_free_blocks) == (0, 0, NUM_BLOCKS)
    assert ended.num_preemptions == 12 == sum(sum(step.preemptions.values()) for step in made)
    assert {uid for step in made for uid in step.queue_seconds} == {1, 2, 3, 4}


def test_a_continued_request_goes_on_in_its_script() -> None:
    engine = FakeEngine(Script(token_ids=[11, 12, 13, 14]))
    engine.handle(add(1, output_token_ids=[11, 12]))
    engine.handle(add(2, output_token_ids=[11, 12], max_tokens=3))
    made = steps(engine)
    assert tokens(made, 1) == [13, 14, 2] and tokens(made, 2) == [13]
    assert made[0].num_tokens == 2 * (12 - 5)


def test_aborted_requests_are_gone_wherever_they_are() -> None:
    engine = FakeEngine(Script(token_ids=[11] * 9, max_num_seqs=1))
    engine.handle(add(1))
    engine.handle(add(2))
    engine.begin()
    engine.handle(AbortRequests([1, 2]))
    stats = engine.stats()
    assert not engine.has_work and (stats.num_running, stats.num_waiting) == (0, 0)


class Process:
    """A fake engine in a process, and what it has said."""

    def __init__(self, script: Script) -> None:
        self.channel = EngineChannel()
        self.loop = asyncio.Runner()
        self.said: asyncio.Queue[Event] = asyncio.Queue()
        self.loop.get_loop().call_soon(self.channel.listen, self.said.put_nowait)
        command = [sys.executable, "-m", "headrace.testing.fake_engine", self.channel.address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(script) + b"\n")
        self.process.stdin.flush()

    def wait_for(self, kind: type[Event], seconds: float = 20.0) -> Event:
        """The next event of a kind."""

        async def listen() -> Event:
            async with asyncio.timeout(seconds):
                while not isinstance(event := await self.said.get(), kind):
                    continue
            return event

        return self.loop.run(listen())

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
        self.channel.close()
        self.loop.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(**script: object) -> Process:
        started.append(Process(Script(token_ids=[11] * 200, **script)))
        return started[-1]

    yield run
    for each in started:
        each.close()


def test_it_says_what_it_is(start: Callable[..., Process]) -> None:
    ready = start(max_num_seqs=3, load_seconds=0.01).wait_for(Ready)
    assert isinstance(ready, Ready)
    assert ready.max_num_seqs == 3 and ready.startup_seconds == {"weights": 0.01}
    assert ready.cache_config["num_gpu_blocks"] == str(NUM_BLOCKS)


def test_it_stalls_in_a_step(start: Callable[..., Process]) -> None:
    """It lives and moves no more; what it showed last is that it began a step."""
    fake = start(stall_after_steps=2)
    fake.wait_for(Ready)
    fake.channel.send(add(1, prompt=10))
    assert [fake.wait_for(StepOutput).num_tokens for _ in range(2)] == [5, 1]
    deadline = time.monotonic() + 20
    while time.monotonic() - (beat := fake.channel.heartbeat.read()).at < 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert beat.step_tokens == 1
    assert fake.process.poll() is None


def test_it_fails_with_its_last_word(start: Callable[..., Process]) -> None:
    fake = start(fail_after_steps=1)
    fake.wait_for(Ready)
    fake.channel.send(add(1))
    fake.wait_for(StepOutput)
    assert "step" in fake.wait_for(EngineFailed).what
    assert fake.process.wait(20) == 1


@pytest.mark.parametrize(
    "script", [{"die_while_loading": True}, {"die_after_steps": 0}, {"die_after_steps": 1}], ids=str
)
def test_it_dies(start: Callable[..., Process], script: dict[str, object]) -> None:
    fake = start(**script)
    if "die_after_steps" in script:
        fake.wait_for(Ready)
        fake.channel.send(add(1))
    assert fake.process.wait(20) == -signal.SIGKILL


def test_it_can_ignore_that_it_shall_stop(start: Callable[..., Process]) -> None:
    fake = start(ignore_shutdown=True)
    fake.wait_for(Ready)
    fake.channel.send(Shutdown())
    fake.channel.send(add(1))
    assert isinstance(fake.wait_for(EngineStats), EngineStats)
    assert fake.process.poll() is None
