"""Stream several answers at once with asyncio."""

import asyncio

from headrace import AsyncLLM, RequestOutputKind, SamplingParams

PROMPTS = ["The capital of France is", "1, 2, 3,", "Once upon a time"]


async def stream(llm: AsyncLLM, number: int, prompt: str) -> None:
    params = SamplingParams(temperature=0, max_tokens=24, output_kind=RequestOutputKind.DELTA)
    async for output in llm.generate(prompt, params, request_id=str(number)):
        print(number, repr(output.outputs[0].text), flush=True)


async def main() -> None:
    async with AsyncLLM() as llm:
        await asyncio.gather(*(stream(llm, number, prompt) for number, prompt in enumerate(PROMPTS)))


asyncio.run(main())
