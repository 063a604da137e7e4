"""From a checked body and its prompts to running requests: what both OpenAI routes do alike."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.core.sampling_params import SamplingParams
from headrace.server.admission import Admission
from headrace.server.http import ClientGone, Exchange
from headrace.server.params import GenerateBody, check_told, sampling_params
from headrace.server.protocol.base import listed
from headrace.server.state import ServerState
from headrace.server.submission import Submission
from headrace.text.bad_words import bad_words_token_ids
from headrace.text.stop import NO_STOP_STRINGS, StopStrings
from headrace.text.stream import RequestStream
from headrace.wire.messages import AddRequest

SEQUENCE_CHARACTERS = 10
STRING_CHARACTERS = 30
"""To make a sequence, or to prepare a string that is looked for, takes as long as to tokenize so many characters."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as it goes to the engine; `text` is None if it came as token ids.

    `told_token_ids` are the beginning of its answer, which was told before and is to be continued; `was_echoed`: after
    the prompt itself.
    """

    token_ids: list[int]
    text: str | None
    told_token_ids: list[int] = field(default_factory=list)
    was_echoed: bool = False

    @property
    def shown_token_ids(self) -> list[int]:
        """What the client has seen of an answer that goes on."""
        return self.token_ids + self.told_token_ids if self.was_echoed else self.told_token_ids


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
    return Answer(f"{prefix}-{request_id or f'{random.getrandbits(128):032x}'}", model, int(time.time()))


async def generating(
    state: ServerState, exchange: Exchange, body: GenerateBody, prompts: Sequence[Prompt], answer: Answer
) -> "Generation":
    """Run `body` on each prompt, in the block that this is used in."""
    requests = await _requests(state, exchange, body, prompts, answer)
    if exchange.ticket is not None:
        state.admission.correct(exchange.ticket, [add for add, _ in requests])
    return Generation(state.client.submit(requests), exchange, None if body.prompt_only else state.admission)


class Generation:
    """Requests that run. Leaving the block, or the client's leaving, gives up what still does.

    `admission` learns how long the answers were.
    """

    def __init__(self, submission: Submission, exchange: Exchange, admission: Admission | None) -> None:
        self._submission = submission
        self._admission = admission
        self._stop_watching = exchange.on_disconnect(lambda: submission.fail(ClientGone()))

    def __enter__(self) -> Submission:
        return self._submission

    def __exit__(self, *_: object) -> None:
        self._stop_watching()
        self._submission.abort()
        if self._admission is not None:
            for num_answers, num_tokens in self._submission.finished_sizes():
                self._admission.learn(num_answers, num_tokens)


async def _requests(
    state: ServerState, exchange: Exchange, body: GenerateBody, prompts: Sequence[Prompt], answer: Answer
) -> list[tuple[AddRequest, RequestStream]]:
    now = time.monotonic()

    def work() -> list[tuple[AddRequest, RequestStream]]:
        params = [_checked_params(state, body, prompt) for prompt in prompts]
        stops = StopStrings(params[0].stop_strings) if params[0].stop else NO_STOP_STRINGS
        tokenizer, bad_words = state.client.text.tokenizer, params[0].bad_words
        words = bad_words_token_ids(tokenizer, bad_words) if bad_words else []
        requests = []
        for number, (prompt, own) in enumerate(zip(prompts, params, strict=True)):
            name, ids, told = f"{answer.id}-{number}", prompt.token_ids, prompt.told_token_ids
            stream = RequestStream(name, prompt.text, ids, own, tokenizer, now, told, stops)
            requests.append((_message(state, body, prompt, own, words), stream))
        return requests

    requests = await state.off_loop(exchange, _size(body, prompts), work)
    for add, stream in requests:
        add.uids = state.client.new_uids(stream.num_sequences)
    return requests


def _size(body: GenerateBody, prompts: Sequence[Prompt]) -> int:
    """How long it takes to make the requests, in characters to tokenize."""
    size = SEQUENCE_CHARACTERS * len(prompts) * (body.n or 1)
    for prompt in prompts:
        size += len(prompt.told_token_ids) + len(prompt.token_ids) // 64
    for string in (*listed(body.stop), *(body.bad_words or ())):
        size += STRING_CHARACTERS + len(string)
    return size


def _checked_params(state: ServerState, body: GenerateBody, prompt: Prompt) -> SamplingParams:
    params = sampling_params(body, prompt.token_ids, state)
    if prompt.told_token_ids:
        check_told(body, prompt.token_ids, prompt.told_token_ids, params, state)
    return params


def _message(
    state: ServerState, body: GenerateBody, prompt: Prompt, params: SamplingParams, bad_words: list[list[int]]
) -> AddRequest:
    return AddRequest(
        uids=[],
        prompt_token_ids=prompt.token_ids,
        params=params,
        eos_token_ids=list(state.client.text.eos_token_ids),
        bad_words_token_ids=bad_words,
        priority=body.priority,
        cache_salt=body.cache_salt or "",
        output_token_ids=prompt.told_token_ids,
    )
