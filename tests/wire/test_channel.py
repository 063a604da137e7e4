"""The channel between the processes: everything arrives, in order, whatever its size, and nobody waits in `send`."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headrace.core.sampling_params import SamplingParams
from headrace.wire.channel import EngineChannel, WorkerChannel
from headrace.wire.liveness import watch_parent
from headrace.wire.messages import AbortRequests, AddRequest, EngineFailed, EngineStats, Shutdown, StepOutput

SECONDS = 10


@pytest.fixture
def ends():
    front = EngineChannel()
    worker = WorkerChannel(front.address)
    yield front, worker
    worker.close()
    front.close()


def drain(worker, count):
    commands = []
    while len(commands) < count:
        assert worker.wait(SECONDS)
        commands += worker.drain()
    return commands


async def hear(front, received, count, worker=None):
    """Until `count` events have come; meanwhile the engine does nothing but look for commands."""
    async with asyncio.timeout(SECONDS):
        while len(received) < count:
            if worker is not None:
                assert worker.drain() == []
            await asyncio.sleep(0.01)


def test_commands_arrive_in_order_and_once(ends):
    front, worker = ends
    sent = [AbortRequests([number]) for number in range(100)] + [Shutdown()]
    assert all(front.send(command) for command in sent)
    assert drain(worker, len(sent)) == sent
    assert worker.drain() == []


async def test_commands_that_the_engine_does_not_read_wait_without_keeping_the_front(ends):
    """More than the kernel holds: the loop sends the rest when the engine reads again."""
    front, worker = ends
    front.listen(lambda event: None)
    sent = [AbortRequests(list(range(number))) for number in range(2_000)]
    began = time.process_time()
    assert all(front.send(command) for command in sent)
    assert time.process_time() - began < 5
    assert await asyncio.to_thread(drain, worker, len(sent)) == sent
    assert front.send(Shutdown())
    assert await asyncio.to_thread(drain, worker, 1) == [Shutdown()]


async def test_a_large_prompt_goes_through(ends):
    front, worker = ends
    front.listen(lambda event: None)
    params = SamplingParams(stop=["a"], logit_bias={5: 1.0})
    sent = [AddRequest([1], list(range(2_000_000)), params, [2], [[3, 4]], 1, "s"), Shutdown()]
    assert all(front.send(command) for command in sent)
    assert await asyncio.to_thread(drain, worker, 2) == sent


def test_waiting_ends_without_a_command(ends):
    _, worker = ends
    began = time.monotonic()
    assert not worker.wait(0.05)
    assert 0.04 < time.monotonic() - began < 2


async def test_events_are_delivered_also_those_from_before_listening(ends):
    """More than the kernel holds: what is left goes when the engine looks for commands."""
    front, worker = ends
    sent = [EngineStats(steps=number) for number in range(2_000)]
    for event in sent[:1_000]:
        worker.send(event)
    await asyncio.sleep(0.1)
    received = []
    front.listen(received.append)
    for event in sent[1_000:]:
        worker.send(event)
    await hear(front, received, len(sent), worker)
    assert received == sent


async def test_an_engine_without_work_sends_what_is_left(ends):
    front, worker = ends
    sent = [StepOutput(bytes(1_000), b"", b"", b"", num_tokens=number) for number in range(5_000)]
    for event in sent:
        worker.send(event)
    waiting = asyncio.create_task(asyncio.to_thread(worker.wait, SECONDS))
    received = []
    front.listen(received.append)
    await hear(front, received, len(sent))
    front.send(Shutdown())
    assert await waiting
    assert received == sent


async def test_a_burst_of_events_leaves_the_loop_its_turns(ends):
    front, worker = ends
    event = StepOutput(bytes(10_000), b"", b"", b"")
    for _ in range(100):
        worker.send(event)
    received, turns = [], 0
    front.listen(received.append)
    async with asyncio.timeout(SECONDS):
        while len(received) < 100:
            worker.drain()
            await asyncio.sleep(0)
            turns += 1
    assert turns >= 100 * 10_000 / 65_536


async def test_an_event_whose_receiver_fails_takes_no_other_with_it(ends):
    front, worker = ends
    received = []

    def deliver(event):
        received.append(event)
        if event.steps == 1:
            raise ValueError("no")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for number in range(3):
        worker.send(EngineStats(steps=number))
    front.listen(deliver)
    await hear(front, received, 2)
    worker.send(EngineStats(steps=3))
    await hear(front, received, 4)
    assert [event.steps for event in received] == [0, 1, 2, 3]


@pytest.mark.parametrize("before", [0, 5_000])
async def test_the_last_word_of_a_closing_engine_arrives(ends, before):
    """Also after more than the kernel holds, and with a command that it never read."""
    front, worker = ends
    received = []
    front.listen(received.append)
    assert front.send(Shutdown())
    for number in range(before):
        worker.send(EngineStats(steps=number))
    worker.send(EngineFailed("It broke"))
    await asyncio.to_thread(worker.close)
    await hear(front, received, before + 1)
    assert received[-1] == EngineFailed("It broke")


async def test_the_last_word_of_an_engine_that_is_killed_arrives():
    front = EngineChannel()
    received = []
    front.listen(received.append)
    code = (
        "import os, signal, sys; from headrace.wire.channel import WorkerChannel;"
        "from headrace.wire.messages import EngineFailed;"
        "WorkerChannel(sys.argv[1]).send(EngineFailed('It broke')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, front.address]
    done = await asyncio.to_thread(subprocess.run, command, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    await hear(front, received, 1)
    assert received == [EngineFailed("It broke")]
    assert not front.send(Shutdown())
    front.close()


def test_a_closing_engine_does_not_wait_for_a_front_that_does_not_read(ends):
    _, worker = ends
    for _ in range(5_000):
        worker.send(StepOutput(bytes(1_000), b"", b"", b""))
    began = time.monotonic()
    worker.close()
    assert time.monotonic() - began < 5


def test_sending_to_nobody_does_not_wait():
    front = EngineChannel()
    began = time.monotonic()
    assert not front.send(Shutdown())
    front.close()
    assert not front.send(Shutdown())
    assert time.monotonic() - began < 1


async def test_neither_end_is_kept_busy_by_the_end_of_the_other(ends):
    front, worker = ends
    front.listen(lambda event: None)
    assert front.send(Shutdown())
    assert worker.wait(SECONDS)
    front.close()
    began, cpu = time.monotonic(), time.process_time()
    worker.send(EngineStats())
    worker.drain()
    assert not worker.wait(0.3)
    assert time.monotonic() - began > 0.2
    assert time.process_time() - cpu < 0.15


async def test_a_front_whose_engine_is_gone_has_nothing_to_do(ends):
    front, worker = ends
    front.listen(lambda event: None)
    worker.close()
    async with asyncio.timeout(SECONDS):
        while front.send(Shutdown()):
            await asyncio.sleep(0.01)
    cpu = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - cpu < 0.15


async def test_the_socket_is_private_for_one_engine_and_leaves_nothing():
    descriptors = list(Path("/proc/self/fd").iterdir())
    front = EngineChannel()
    front.listen(lambda event: None)
    directory = Path(front.address).parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    worker = WorkerChannel(front.address)
    assert front.send(Shutdown())
    with pytest.raises(ConnectionRefusedError):
        WorkerChannel(front.address)
    for end in (worker, front, worker, front):
        end.close()
    assert not directory.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(descriptors)


def test_the_end_of_a_pipe_is_noticed():
    read, write = os.pipe()
    gone = threading.Event()
    watch_parent(gone.set, stdin_fd=read)
    os.write(write, b"still here")
    assert not gone.wait(0.1)
    os.close(write)
    assert gone.wait(5)
    os.close(read)
