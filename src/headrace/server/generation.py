"""From a checked body and its prompts to running requests: what both OpenAI routes do alike."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from headrace.server.http import ClientGone, Exchange
from headrace.server.params import GenerateBody, check_told, sampling_params
from headrace.server.state import ServerState
from headrace.server.submission import Submission
from headrace.text.bad_words import bad_words_token_ids
from headrace.text.stream import RequestStream
from headrace.wire.messages import AddRequest


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as it goes to the engine; `text` is None if it came as token ids.

    `told_token_ids` are the beginning of its answer, which was told before and is to be continued.
    """

    token_ids: list[int]
    text: str | None
    told_token_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """What all parts of one answer carry."""

    id: str
    model: str
    created: int

    def fields(self, kind: str) -> dict[str, object]:
        """The first fields of an answer or a chunk of the given OpenAI object kind."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def new_answer(prefix: str, model: str, request_id: str | None) -> Answer:
    """An answer with the caller's id or a new one."""
    return Answer(f"{prefix}-{request_id or secrets.token_hex(16)}", model, int(time.time()))


@asynccontextmanager
async def generating(
    state: ServerState, exchange: Exchange, body: GenerateBody, prompts: Sequence[Prompt], answer: Answer
) -> AsyncIterator[Submission]:
    """Run `body` on each prompt. Leaving the block, or the client's leaving, gives up what still runs."""
    requests = [await _request(state, body, each, f"{answer.id}-{number}") for number, each in enumerate(prompts)]
    if exchange.ticket is not None:
        state.admission.correct(exchange.ticket, [add for add, _ in requests])
    submission = state.client.submit(requests)
    stop_watching = exchange.on_disconnect(lambda: submission.fail(ClientGone()))
    try:
        yield submission
    finally:
        stop_watching()
        submission.abort()
        for add, stream in requests:
            if stream.finished:
                state.admission.learn(len(add.uids), stream.num_output_tokens)


async def _request(
    state: ServerState, body: GenerateBody, prompt: Prompt, request_id: str
) -> tuple[AddRequest, RequestStream]:
    text = state.client.text
    params = sampling_params(body, prompt.token_ids, state)
    if prompt.told_token_ids:
        check_told(body, prompt.token_ids, prompt.told_token_ids, params, state)
    add = AddRequest(
        uids=state.client.new_uids(params.n),
        prompt_token_ids=prompt.token_ids,
        params=params,
        eos_token_ids=list(text.eos_token_ids),
        bad_words_token_ids=bad_words_token_ids(text.tokenizer, params.bad_words) if params.bad_words else [],
        priority=body.priority,
        cache_salt=body.cache_salt or "",
        output_token_ids=prompt.told_token_ids,
    )
    now, told = time.monotonic(), prompt.told_token_ids

    def work() -> RequestStream:
        return RequestStream(request_id, prompt.text, prompt.token_ids, params, text.tokenizer, now, told)

    return add, await state.off_loop(len(told), work)
