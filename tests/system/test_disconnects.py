"""1,000 clients leave, in every state that a request can be in, and within a second nothing of them is left.

The second is the engine's, from when the front has seen all of them go; a step cannot be cut, so steps are small here.
What the front needs is measured in its own CPU time: clients, engine and test share two processors.
"""

import asyncio
import random
import re
import time

import httpx
from headrace_server import HeadraceServer, wait_until
from raw_client import RawClient, Sent, prompt

CLIENTS = 1_000
STEP_TOKENS = "256"
FREE_SECONDS = 1.0
GAUGES = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "headrace:open_sequences",
)


def loads(http: httpx.Client) -> dict[str, float]:
    """What the front itself counts."""
    return http.get("/load").json()


def counters(http: httpx.Client) -> dict[str, float]:
    """Everything that must be zero when nobody is there: of the front, and of the engine's own."""
    text = http.get("/metrics").text
    gauges = {name: float(re.search(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE)[1]) for name in GAUGES}
    return gauges | loads(http)


def cpu_seconds(server: HeadraceServer) -> float:
    """What the front has used so far."""
    times = server.front.cpu_times()
    return times.user + times.system


def body(number: int) -> dict[str, object]:
    """Every kind of request: short and long prompts, one answer or three, one prompt or two, streamed or not."""
    tokens = 600 if number % 7 == 0 else 16
    prompts = [prompt(number + 3_000 * each, tokens) for each in range(1 + (number % 5 == 0))]
    return {
        "prompt": prompts,
        "max_tokens": 2_000,
        "ignore_eos": True,
        "n": 3 if number % 3 == 0 else 1,
        "stream": number % 2 == 0,
    }


def test_1000_clients_leave_in_every_state(start_server):
    unbounded = ("--max-num-queued-reqs", "0", "--max-queue-time", "0")
    server = start_server("--max-num-seqs", "24", "--max-num-batched-tokens", STEP_TOKENS, *unbounded)
    http = httpx.Client(base_url=server.url, timeout=60)
    states: dict[str, int] = {}

    async def leave(sent: Sent, task: "asyncio.Task[None]") -> None:
        state = "answered" if task.done() else "decoding" if sent.first_byte else "before its first byte"
        states[state] = states.get(state, 0) + 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def come_and_leave() -> tuple[float, float]:
        client, chance = RawClient(server.url), random.Random(3)
        opened = []
        for number in range(CLIENTS):
            opened.append(client.start(body(number)))
            if number % 10 == 9:
                await asyncio.sleep(0.02)
            if number % 3 == 2:  # some leave at once: before they are tokenized, or while they are
                await leave(*opened.pop(chance.randrange(len(opened))))
        while sum(bool(sent.first_byte) for sent, _ in opened) < 5:
            await asyncio.sleep(0.05)
        at_once = counters(http)
        assert min(at_once["vllm:num_requests_running"], at_once["waiting_requests"]) > 10, at_once
        chance.shuffle(opened)
        for each in sorted(opened, key=lambda each: not each[0].first_byte)[:200]:
            await leave(*each)
        await asyncio.sleep(0.5)  # others take the places of those that left
        cpu = cpu_seconds(server)
        for each in [each for each in opened if not each[1].done()]:
            await leave(*each)
        return time.monotonic(), cpu

    left, cpu = asyncio.run(come_and_leave())
    wait_until(lambda: not any(loads(http).values()))
    seen, cpu = time.monotonic(), cpu_seconds(server) - cpu
    wait_until(lambda: not any(counters(http).values()))
    freed = time.monotonic()
    http.close()
    print(f"{seen - left:.2f} s ({cpu:.2f} s of CPU) after the last of {states} left, the front had seen it,")
    print(f"and {freed - seen:.2f} s later all counters were zero")
    assert cpu < FREE_SECONDS
    assert freed - seen < FREE_SECONDS
    assert set(states) == {"decoding", "before its first byte"}
    answer = server.post("/v1/completions", {"prompt": "Hello", "max_tokens": 4})
    assert (answer.status_code, server.engine.is_running()) == (200, True)
