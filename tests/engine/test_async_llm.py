"""`AsyncLLM`: many tasks, one engine thread, nothing left behind."""

import asyncio
import threading
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from headrace import AsyncLLM, HeadraceError, RequestOutputKind, SamplingParams


@pytest.fixture
async def engine(smollm2_gguf: Path) -> AsyncIterator[AsyncLLM]:
    async with AsyncLLM(str(smollm2_gguf), max_model_len=512, max_num_seqs=8) as engine:
        yield engine


def params(**kwargs: object) -> SamplingParams:
    return SamplingParams(**{"temperature": 0, "max_tokens": 16, "output_kind": RequestOutputKind.DELTA, **kwargs})


async def collect(engine: AsyncLLM, prompt: str, name: str, **kwargs: object) -> list[str]:
    return [o.outputs[0].text async for o in engine.generate(prompt, params(**kwargs), name)]


async def free_blocks_return(engine: AsyncLLM) -> bool:
    pool = engine._loaded.engine.scheduler.kv.pool
    for _ in range(500):
        if pool.num_free == pool.num_blocks:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_deltas_join_to_the_whole(engine: AsyncLLM) -> None:
    deltas = await collect(engine, "1, 2, 3,", "a")
    whole = [o async for o in engine.generate("1, 2, 3,", params(output_kind=RequestOutputKind.FINAL_ONLY), "b")]
    cumulative = [o async for o in engine.generate("1, 2, 3,", params(output_kind=RequestOutputKind.CUMULATIVE), "c")]
    assert len(deltas) > 5 and len(whole) == 1
    assert "".join(deltas) == whole[0].outputs[0].text == cumulative[-1].outputs[0].text
    assert all(b.outputs[0].text.startswith(a.outputs[0].text) for a, b in pairwise(cumulative))


async def test_many_tasks_share_the_engine(engine: AsyncLLM) -> None:
    answers = await asyncio.gather(*(collect(engine, f"Number {i}:", str(i)) for i in range(20)))
    assert all(answers)
    assert await free_blocks_return(engine)


async def test_leaving_the_iterator_frees_the_sequence(engine: AsyncLLM) -> None:
    stream = engine.generate("Once upon a time", params(max_tokens=400, ignore_eos=True), "a")
    await anext(stream)
    await stream.aclose()
    task = asyncio.create_task(collect(engine, "Once upon a time", "b", max_tokens=400, ignore_eos=True))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await free_blocks_return(engine)


async def test_abort_ends_the_stream(engine: AsyncLLM) -> None:
    reasons = []
    async for output in engine.generate("Once", params(max_tokens=400, ignore_eos=True), "a"):
        reasons.append(output.outputs[0].finish_reason)
        if len(reasons) == 3:
            await engine.abort("a")
    assert reasons[-1] == "abort"
    assert await free_blocks_return(engine)


async def test_bad_requests_are_refused_at_once(engine: AsyncLLM) -> None:
    with pytest.raises(HeadraceError, match="max_tokens is 4000"):
        await collect(engine, "Hi", "a", max_tokens=4000)
    assert await collect(engine, "Hi", "a")


async def test_a_name_can_be_used_once_at_a_time(engine: AsyncLLM) -> None:
    stream = engine.generate("Once", params(max_tokens=100), "same")
    await anext(stream)
    with pytest.raises(HeadraceError, match="'same' is in use"):
        await collect(engine, "Twice", "same")
    await stream.aclose()


async def test_closing_ends_open_streams_and_the_thread(smollm2_gguf: Path) -> None:
    engine = AsyncLLM(str(smollm2_gguf), max_model_len=512)
    stream = engine.generate("Once", params(max_tokens=400, ignore_eos=True), "a")
    await anext(stream)
    engine.close()
    with pytest.raises(HeadraceError, match="closed"):
        async for _ in stream:
            pass
    assert not any(thread.name == "headrace-engine" for thread in threading.enumerate())
    with pytest.raises(HeadraceError, match="closed"):
        await collect(engine, "Hi", "b")


async def test_a_failed_step_fails_every_stream_with_its_cause(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [asyncio.create_task(collect(engine, "Once", str(i), max_tokens=400, ignore_eos=True)) for i in range(3)]
    await asyncio.sleep(0.3)

    def fail(*_: object) -> None:
        raise RuntimeError("the card fell out")

    monkeypatch.setattr(engine._loaded.engine._runner, "launch", fail)
    for task in tasks:
        with pytest.raises(HeadraceError, match="the card fell out"):
            await task
    with pytest.raises(HeadraceError, match="the card fell out"):
        await collect(engine, "Hi", "later")
