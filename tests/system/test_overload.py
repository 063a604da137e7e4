"""Ten times as many requests as the server can serve, for a minute, from clients that do not wait for each other."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from headrace_server import HeadraceServer, wait_until
from raw_client import RawClient, Sent, prompt

SECONDS = 60.0
FACTOR = 10.0
QUEUE_SECONDS = 5.0
MEBIBYTE = 2**20


def body(number: int) -> dict[str, object]:
    """A short request, streamed, so that its first token is seen."""
    return {"prompt": prompt(number, 100), "max_tokens": 30, "ignore_eos": True, "stream": True}


async def lateness(late: list[float]) -> None:
    """How late this process is when it only wants to wake up: what the machine does to everyone on it."""
    while True:
        due = time.monotonic() + 0.002
        await asyncio.sleep(0.002)
        late.append(time.monotonic() - due)


@dataclass
class Memory:
    """Resident bytes of a process over time."""

    process: psutil.Process
    samples: list[int]

    def look(self) -> None:
        self.samples.append(self.process.memory_info().rss)

    def growth_bytes(self) -> float:
        """From the second third of the time to the last: in the first, buffers and caches fill."""
        third = len(self.samples) // 3
        return statistics.median(self.samples[-third:]) - statistics.median(self.samples[third:-third])


async def requests_per_second(client: RawClient, seconds: float) -> float:
    """How many requests the server can serve: as many clients as it has places, each asking again and again."""
    ends: list[float] = []

    async def one(first: int) -> None:
        number, until = first, time.monotonic() + seconds
        while time.monotonic() < until:
            assert (await client.ask(body(number))).complete
            ends.append(time.monotonic())
            number += 8

    began = time.monotonic()
    await asyncio.gather(*(one(first) for first in range(8)))
    return len(ends) / (max(ends) - began)


async def overload(client: RawClient, per_second: float, memories: Sequence[Memory]) -> list[Sent]:
    """Send at a fixed rate, whatever becomes of it."""
    opened = []
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < SECONDS:
        while len(opened) < elapsed * per_second:
            opened.append(client.start(body(1_000 + len(opened))))
        if len(memories[0].samples) < elapsed:
            for memory in memories:
                memory.look()
        await asyncio.sleep(0.005)
    await asyncio.gather(*(task for _, task in opened))
    return [sent for sent, _ in opened]


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def test_ten_times_too_much_for_a_minute(start_server):
    server: HeadraceServer = start_server(
        *("--max-num-seqs", "8", "--max-queue-time", f"{QUEUE_SECONDS:g}", "--kv-cache-memory-bytes", "64M")
    )
    front, engine = Memory(server.front, []), Memory(server.engine, [])

    late: list[float] = []

    async def run() -> tuple[float, list[Sent]]:
        client = RawClient(server.url)
        capacity = await requests_per_second(client, 8.0)
        watch = asyncio.create_task(lateness(late))
        answers = await overload(client, FACTOR * capacity, (front, engine))
        watch.cancel()
        return capacity, answers

    capacity, answers = asyncio.run(run())
    accepted = [sent for sent in answers if sent.status == 200]
    refused = [sent for sent in answers if sent.status == 429]
    first_token = [sent.first_byte - sent.began for sent in accepted]
    refusal = [sent.headed - sent.began for sent in refused]
    ttft, refusal_ms = [
        f"p50 {percentile(values, 0.5):.1f} p99 {percentile(values, 0.99):.1f}"
        for values in (first_token, [seconds * 1e3 for seconds in refusal])
    ]
    growth = [f"{memory.growth_bytes() / MEBIBYTE:.1f}" for memory in (front, engine)]
    print(f"\n{capacity:.1f} requests/s can be served, {len(answers)} were sent in {SECONDS:.0f} s")
    print(f"{len(accepted)} accepted, TTFT {ttft} s; {len(refused)} refused in {refusal_ms} ms")
    print(f"a wake-up in the client was {percentile(late, 0.99) * 1e3:.1f} ms late at p99")
    print(f"MiB that memory grew by: front {growth[0]}, engine {growth[1]}")
    assert len(accepted) + len(refused) == len(answers), {sent.status: sent.error for sent in answers}
    assert all(sent.complete and sent.num_chunks >= 1 for sent in accepted), "what was accepted is answered"
    assert len(refused) > len(accepted)
    assert len(accepted) > 0.4 * capacity * SECONDS, "the engine is kept busy"
    assert all(1 <= int(sent.headers["retry-after"]) <= 60 for sent in refused)
    assert percentile(first_token, 0.99) < 4 * QUEUE_SECONDS
    assert percentile(refusal, 0.5) < 0.010
    wake_ups = 3  # a connection, a request, an answer: each may have to wait for a processor
    assert percentile(refusal, 0.99) < 0.010 + wake_ups * percentile(late, 0.99)
    assert front.growth_bytes() < 16 * MEBIBYTE
    assert engine.growth_bytes() < 16 * MEBIBYTE
    wait_until(lambda: not any(server.get("/load").json().values()))
    assert server.get("/ready").status_code == 200
