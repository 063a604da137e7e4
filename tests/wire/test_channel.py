"""The channel between the processes: everything arrives, in order, whatever its size, and nobody waits in `send`."""

import asyncio
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from headrace.core.sampling_params import SamplingParams
from headrace.wire.channel import EngineChannel, WorkerChannel
from headrace.wire.liveness import watch_parent
from headrace.wire.messages import AbortRequests, AddRequest, EngineFailed, EngineStats, Shutdown


@pytest.fixture
def ends():
    front = EngineChannel()
    worker = WorkerChannel(front.commands_address, front.events_address)
    yield front, worker
    worker.close()
    front.close()


def send_all(front, commands):
    deadline = time.monotonic() + 5
    for command in commands:
        while not front.send(command):  # until the worker has connected
            assert time.monotonic() < deadline
            time.sleep(0.01)


def drain(worker, count):
    commands = []
    while len(commands) < count:
        assert worker.wait(5)
        commands += worker.drain()
    return commands


def test_commands_arrive_in_order(ends):
    front, worker = ends
    sent = [AbortRequests([number]) for number in range(1_000)] + [Shutdown()]
    send_all(front, sent)
    assert drain(worker, len(sent)) == sent
    assert worker.drain() == []


def test_a_large_prompt_goes_through(ends):
    front, worker = ends
    sent = AddRequest([1], list(range(200_000)), SamplingParams(stop=["a"], logit_bias={5: 1.0}), [2], [[3, 4]], 1, "s")
    send_all(front, [sent])
    assert drain(worker, 1) == [sent]


def test_waiting_ends_without_a_command(ends):
    _, worker = ends
    began = time.monotonic()
    assert not worker.wait(0.05)
    assert 0.04 < time.monotonic() - began < 2


async def test_events_are_delivered_also_those_from_before_listening(ends):
    front, worker = ends
    sent = [EngineStats(steps=number) for number in range(2_000)]
    for event in sent[:1_000]:
        worker.send(event)
    await asyncio.sleep(0.1)
    received = []
    front.listen(received.append)
    for event in sent[1_000:]:
        worker.send(event)
    async with asyncio.timeout(5):
        while len(received) < len(sent):
            await asyncio.sleep(0.01)
    assert received == sent


async def test_the_last_word_of_a_closing_engine_arrives(ends):
    front, worker = ends
    received = []
    front.listen(received.append)
    worker.send(EngineFailed("It broke"))
    worker.close()
    async with asyncio.timeout(5):
        while not received:
            await asyncio.sleep(0.01)
    assert received == [EngineFailed("It broke")]


def test_sending_to_nobody_does_not_wait():
    front = EngineChannel()
    began = time.monotonic()
    assert not front.send(Shutdown())
    front.close()
    assert time.monotonic() - began < 1


def test_the_sockets_are_private_and_removed():
    front = EngineChannel()
    directory = Path(front.commands_address.removeprefix("ipc://")).parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    front.close()
    front.close()
    assert not directory.exists()


def test_the_end_of_a_pipe_is_noticed():
    read, write = os.pipe()
    gone = threading.Event()
    watch_parent(gone.set, stdin_fd=read)
    os.write(write, b"still here")
    assert not gone.wait(0.1)
    os.close(write)
    assert gone.wait(5)
    os.close(read)
