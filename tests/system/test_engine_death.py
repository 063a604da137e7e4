"""The engine process is killed, stopped or busy: what clients get, what /health says, and how it comes back."""

import asyncio
import signal
import time

import pytest
from headrace_server import HeadraceServer, wait_until
from raw_client import RawClient, Sent, prompt

STREAMS = 100
LONG = {"max_tokens": 4_000, "ignore_eos": True, "stream": True}


def load(server: HeadraceServer) -> dict[str, int]:
    return server.get("/load").json()


async def open_streams(server: HeadraceServer) -> "list[tuple[Sent, asyncio.Task[None]]]":
    """Streams of which each has begun to come."""
    client = RawClient(server.url)
    opened = [client.start({"prompt": prompt(number), **LONG}) for number in range(STREAMS)]
    while not all(sent.first_byte for sent, _ in opened):
        assert not any(task.done() for _, task in opened), "one ended by itself"
        await asyncio.sleep(0.05)
    return opened


def test_100_streams_end_with_an_error_when_the_engine_is_killed_and_the_server_comes_back(start_server):
    server = start_server()

    async def kill_under_streams() -> tuple[float, list[Sent]]:
        opened = await open_streams(server)
        server.engine.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        await asyncio.to_thread(wait_until, lambda: server.get("/health").status_code == 503)
        await asyncio.gather(*(task for _, task in opened))
        return killed, [sent for sent, _ in opened]

    lost = server.engine
    killed, streams = asyncio.run(kill_under_streams())
    assert all(sent.told_error and b"SIGKILL" in sent.received for sent in streams)
    last = max(sent.ended for sent in streams) - killed
    print(f"the last of {STREAMS} streams ended {last:.2f} s after the engine")
    assert last < 10.0, "a second or so, were the machine idle"
    assert not any(load(server).values())

    wait_until(lambda: server.get("/ready").status_code == 200)
    assert server.get("/health").json() == {"status": "ready"}
    assert server.engine.pid != lost.pid
    answer = server.post("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 8})
    assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 8)
    assert not list(server.temporary.iterdir()), "the sockets of both engines are gone"
    assert server.stop() == 0


def test_an_engine_that_is_killed_again_and_again_ends_the_server_with_the_reason(start_server):
    server = start_server("--max-engine-restarts", "1")
    server.engine.kill()
    wait_until(lambda: server.get("/ready").status_code == 503)
    wait_until(lambda: server.get("/ready").status_code == 200)
    server.engine.kill()
    assert server.process.wait(60) == 1
    assert "killed by SIGKILL" in server.log
    assert "--max-engine-restarts is 1" in server.log
    assert "Traceback" not in server.log
    assert not list(server.temporary.iterdir())


def test_an_engine_that_stands_still_is_not_healthy_until_it_goes_on(start_server):
    """Twice: that a step took half a minute once does not hide the next that stands still."""
    server = start_server()

    async def stop_under_a_stream(seconds_more: float) -> Sent:
        sent, task = RawClient(server.url).start({"prompt": prompt(0), **LONG, "max_tokens": 300})
        while not sent.first_byte:
            await asyncio.sleep(0.02)
        server.engine.send_signal(signal.SIGSTOP)
        try:
            seconds = await asyncio.to_thread(wait_until, lambda: server.get("/health").status_code == 503)
            print(f"/health was false {seconds:.1f} s after SIGSTOP")
            error = server.get("/health").json()["error"]["message"]
            assert "no progress" in error and "1 sequence open" in error
            assert server.get("/ready").status_code == 503
            refused = server.post("/v1/completions", {"prompt": "Once", "max_tokens": 1})
            assert refused.status_code == 503 and "no progress" in refused.json()["error"]["message"]
            assert server.get("/live").status_code == 200
            await asyncio.sleep(seconds_more)
            assert not task.done(), "it is still hoped that the engine goes on"
        finally:
            server.engine.send_signal(signal.SIGCONT)
        await asyncio.to_thread(wait_until, lambda: server.get("/health").status_code == 200)
        await task
        return sent

    for seconds_more in (25.0, 0.0):
        sent = asyncio.run(stop_under_a_stream(seconds_more))
        assert sent.complete
        assert sent.num_chunks == 300


def test_a_long_prompt_is_not_taken_for_a_hang(server):
    async def ask_and_look() -> None:
        task = asyncio.create_task(RawClient(server.url).ask({"prompt": prompt(0, 7_500), "max_tokens": 1}))
        looks = 0
        while not task.done():
            health = await asyncio.to_thread(server.get, "/health")
            assert (health.status_code, health.json()) == (200, {"status": "ready"})
            looks += 1
            await asyncio.sleep(0.1)
        assert (await task).complete
        assert looks > 5

    asyncio.run(ask_and_look())


@pytest.fixture(autouse=True)
def _nothing_is_left_open(request: pytest.FixtureRequest):
    yield
    if "server" in request.fixturenames:
        running = request.getfixturevalue("server")
        wait_until(lambda: not any(load(running).values()))
