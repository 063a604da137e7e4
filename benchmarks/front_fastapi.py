"""The peer of `front.py`: the same answers from the same fake engine, as one writes it with FastAPI and pydantic.

One queue a request, one task a stream, a pydantic model a chunk, texts of more than 500 characters encoded in a thread.
"""

import argparse
import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from tokenizers.decoders import DecodeStream

from front_admit import measure_admission
from front_parts import FakeEngine, load_text, run, say_ready
from headrace.core.sampling_params import SamplingParams
from headrace.server.run import listen
from headrace.wire.channel import EngineChannel
from headrace.wire.messages import AbortRequests, AddRequest, Event, Ready, StepOutput

REASONS = (None, "stop", "length", "abort", "error")


class Message(BaseModel):
    """A message of a chat."""

    role: str
    content: str


class GenerateRequest(BaseModel):
    """What both routes take."""

    model: str
    stream: bool = False
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=16, ge=1)
    n: int = Field(default=1, ge=1, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False


class ChatRequest(GenerateRequest):
    """The body of /v1/chat/completions."""

    messages: list[Message]


class CompletionRequest(GenerateRequest):
    """The body of /v1/completions."""

    prompt: str


class Delta(BaseModel):
    """What is new in a chunk."""

    role: str | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """A choice of a chunk."""

    index: int
    delta: Delta
    logprobs: Any = None
    finish_reason: str | None = None


class Chunk(BaseModel):
    """A chunk of a streamed chat."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]


class Choice(BaseModel):
    """A choice of a whole answer."""

    index: int
    text: str | None = None
    message: Message | None = None
    finish_reason: str | None


class Answer(BaseModel):
    """A whole answer."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]


class Engine:
    """The fake engine behind one queue a request."""

    def __init__(self, process: FakeEngine) -> None:
        self._process = process
        self._channel = EngineChannel()
        self._queues: dict[int, asyncio.Queue[tuple[int, int]]] = {}
        self._uids = itertools.count(1)
        self._ready = asyncio.Event()

    async def start(self) -> None:
        """Return when the engine is ready."""
        self._channel.listen(self._on_event)
        self._process.start(self._channel.address, lambda reason: None)
        self._process.load()
        await self._ready.wait()

    def stop(self) -> None:
        """End the engine."""
        self._process.stop(1.0)
        self._channel.close()

    async def generate(self, prompt_token_ids: list[int], params: SamplingParams) -> AsyncIterator[tuple[int, int]]:
        """(token id, finish) as they come."""
        uid = next(self._uids)
        queue = self._queues[uid] = asyncio.Queue()
        self._channel.send(AddRequest([uid], prompt_token_ids, params))
        finish = 0
        try:
            while not finish:
                token_id, finish = await queue.get()
                yield token_id, finish
        finally:
            del self._queues[uid]
            if not finish:
                self._channel.send(AbortRequests([uid]))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Ready):
            self._ready.set()
        elif isinstance(event, StepOutput):
            for uid, token_id, finish, _ in event.rows():
                if (queue := self._queues.get(uid)) is not None:
                    queue.put_nowait((token_id, finish))


def create_app(engine: Engine, tokenizer: Any) -> FastAPI:
    """The application."""
    app = FastAPI()

    async def encode(text: str) -> list[int]:
        if len(text) <= 500:
            return tokenizer.encode(text, add_special_tokens=False)
        return await asyncio.to_thread(lambda: tokenizer.backend.encode(text, add_special_tokens=False).ids)

    def params(body: GenerateRequest) -> SamplingParams:
        return SamplingParams(
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_tokens,
            seed=body.seed,
            stop=body.stop,
            ignore_eos=body.ignore_eos,
        )

    async def chunks(body: ChatRequest, token_ids: list[int]) -> AsyncIterator[str]:
        answer_id, created = f"chatcmpl-{secrets.token_hex(16)}", int(time.time())

        def event(delta: Delta, reason: str | None = None) -> str:
            choice = ChunkChoice(index=0, delta=delta, finish_reason=reason)
            chunk = Chunk(id=answer_id, created=created, model=body.model, choices=[choice])
            return f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"

        decoder = DecodeStream(skip_special_tokens=True)
        yield event(Delta(role="assistant", content=""))
        async for token_id, finish in engine.generate(token_ids, params(body)):
            text = decoder.step(tokenizer.backend, token_id)
            if text or finish:
                yield event(Delta(content=text or ""), REASONS[finish])
        yield "data: [DONE]\n\n"

    async def whole(body: GenerateRequest, token_ids: list[int]) -> tuple[str, str | None]:
        made = [pair async for pair in engine.generate(token_ids, params(body))]
        return tokenizer.backend.decode([token_id for token_id, _ in made]), REASONS[made[-1][1]]

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest) -> Answer | StreamingResponse:
        prompt = tokenizer.apply_chat_template([message.model_dump() for message in body.messages])
        token_ids = await encode(prompt)
        if body.stream:
            return StreamingResponse(chunks(body, token_ids), media_type="text/event-stream")
        text, reason = await whole(body, token_ids)
        message = Message(role="assistant", content=text)
        choice = Choice(index=0, message=message, finish_reason=reason)
        return _answer(body.model, "chat.completion", choice)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest) -> Answer:
        text, reason = await whole(body, await encode(body.prompt))
        return _answer(body.model, "text_completion", Choice(index=0, text=text, finish_reason=reason))

    return app


def _answer(model: str, kind: str, choice: Choice) -> Answer:
    return Answer(id=secrets.token_hex(16), object=kind, created=int(time.time()), model=model, choices=[choice])


async def main(options: argparse.Namespace) -> None:
    """Serve until killed, or measure admissions."""
    text = load_text()
    engine = Engine(FakeEngine(text, options.step_seconds))
    app = create_app(engine, text.tokenizer)
    await engine.start()
    if options.admit:
        await measure_admission(app, text.tokenizer, options.admit)
        engine.stop()
        return
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    say_ready(listener)
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    run(main)
