"""A client that does not read its stream costs the others nothing."""

import asyncio

from raw_client import RawClient, prompt

TOKENS = 600


def test_others_get_their_tokens_while_one_does_not_read(server):
    """The slow one's answer is larger than all buffers on the way, and it reads nothing until the others are done."""

    async def read_fast_beside_slow() -> None:
        client = RawClient(server.url)
        request = {"max_tokens": TOKENS, "ignore_eos": True, "stream": True}
        large = {"prompt": prompt(99), "n": 8, "logprobs": 20, **request}
        reader, writer = await client.connect(large)
        fast = [client.start({"prompt": prompt(number), **request}) for number in range(4)]
        await asyncio.gather(*(task for _, task in fast))
        # a token in the middle of a character has no event of its own
        assert all(0.9 * TOKENS <= sent.num_chunks <= TOKENS for sent, _ in fast), [sent.num_chunks for sent, _ in fast]
        assert all(sent.complete for sent, _ in fast)
        received = await reader.read()
        assert b"data: [DONE]" in received[-100:]
        assert received.count(b'"finish_reason":"length"') == 8
        writer.close()

    asyncio.run(read_fast_beside_slow())
