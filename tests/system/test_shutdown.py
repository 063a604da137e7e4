"""SIGTERM under load: nothing that was accepted is lost, and then the process is gone."""

import asyncio
import signal

from raw_client import RawClient, prompt

CLIENTS = 80


def test_all_that_was_accepted_is_answered_before_the_end(start_server):
    """Of 80 requests 8 run, the others are queued, and they come as the signal does."""
    server = start_server("--max-num-seqs", "8", "--shutdown-timeout", "600", "--max-queue-time", "0")

    async def terminate_under_load() -> list[bool]:
        client = RawClient(server.url)
        opened = [
            client.start({"prompt": prompt(number), "max_tokens": 20 + number % 20, "stream": number % 2 == 0})
            for number in range(CLIENTS)
        ]
        while not any(sent.first_byte for sent, _ in opened):
            await asyncio.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        late = asyncio.create_task(_come_late(client))
        await asyncio.gather(*(task for _, task in opened))
        assert await late, "someone who came after the signal was not turned away"
        return [sent.complete for sent, _ in opened]

    answered = asyncio.run(terminate_under_load())
    assert answered.count(True) == CLIENTS
    assert server.process.wait(60) == 0
    assert not list(server.temporary.iterdir())
    assert "Traceback" not in server.log


async def _come_late(client: RawClient) -> bool:
    """Send small requests until one does not get in. All that get in are answered."""
    while True:
        sent = await client.ask({"prompt": "x", "max_tokens": 1})
        if sent.error is not None:
            return not sent.status
        assert sent.complete


def test_what_takes_longer_than_it_may_ends_with_an_error(start_server):
    server = start_server("--shutdown-timeout", "1")

    async def terminate_under_a_stream() -> None:
        sent, task = RawClient(server.url).start(
            {"prompt": prompt(0), "max_tokens": 8_000, "stream": True, "ignore_eos": True}
        )
        while not sent.first_byte:
            await asyncio.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        await task
        assert sent.told_error
        assert b"stopping" in sent.received

    asyncio.run(terminate_under_a_stream())
    assert server.process.wait(60) == 0
