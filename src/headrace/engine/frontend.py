"""From prompts to engine requests, and from the engine's columns to outputs, within one process."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from headrace.core.sampling_params import SamplingParams
from headrace.engine.prompts import ParsedPrompt, no_tokenizer
from headrace.text.bad_words import bad_words_token_ids
from headrace.text.stream import RequestStream
from headrace.text.tokenizer import Tokenizer
from headrace.wire.messages import FINISH_REASONS, AddRequest, StepOutput


class Frontend:
    """Knows which stream each engine sequence belongs to. `abort` is called when a stop string ends a sequence."""

    def __init__(
        self, tokenizer: Tokenizer | None, eos_token_ids: tuple[int, ...], abort: Callable[[list[int]], None]
    ) -> None:
        self._tokenizer = tokenizer
        self._eos_token_ids = list(eos_token_ids)
        self._abort = abort
        self._next_uid = 0
        self._places: dict[int, tuple[RequestStream, int]] = {}

    def detach(self) -> None:
        """Let go of the tokenizer and the engine: whoever still holds this holds nothing big."""
        self._tokenizer = None
        self._abort = _nobody

    def next_uid(self) -> int:
        """A sequence name that was never used before."""
        self._next_uid += 1
        return self._next_uid

    def prepare(
        self, prompt: ParsedPrompt, params: SamplingParams, request_id: str, priority: int = 0
    ) -> tuple[AddRequest, RequestStream]:
        """The engine's message for a prompt that the limits accept, and the stream that its output will go to."""
        token_ids = self.tokenized(prompt).token_ids or []
        words = self._bad_words(params)
        uids = [self.next_uid() for _ in range(params.n)]
        message = AddRequest(uids, token_ids, params, self._eos_token_ids, words, priority, prompt.cache_salt)
        return message, RequestStream(request_id, prompt.text, token_ids, params, self._tokenizer, time.monotonic())

    def tokenized(self, prompt: ParsedPrompt) -> ParsedPrompt:
        """The prompt with token ids, made from its text where it has none."""
        if prompt.token_ids is not None:
            return prompt
        assert prompt.text is not None
        if self._tokenizer is None:
            raise no_tokenizer("A prompt of text is split into tokens by it")
        return replace(prompt, token_ids=self._tokenizer.encode(prompt.text))

    def _bad_words(self, params: SamplingParams) -> list[list[int]]:
        if self._tokenizer is not None:
            return bad_words_token_ids(self._tokenizer, params.bad_words) if params.bad_words else []
        if params.bad_words or params.stop_strings:
            raise no_tokenizer("Stop strings and bad_words are text")
        return []

    def open(self, message: AddRequest, stream: RequestStream) -> None:
        """From now on the sequences' tokens go to this stream."""
        for index, uid in enumerate(message.uids):
            self._places[uid] = (stream, index)

    def close(self, message: AddRequest) -> None:
        """Forget the sequences; tokens of theirs that still come are dropped."""
        for uid in message.uids:
            self._places.pop(uid, None)

    def stream_of(self, uids: list[int]) -> RequestStream | None:
        """The stream that any of these sequences still feeds."""
        return next((self._places[uid][0] for uid in uids if uid in self._places), None)

    def dispatch(self, output: StepOutput) -> Iterator[RequestStream]:
        """Give each row to its stream; the streams that got something, each once."""
        now = time.monotonic()
        touched: dict[int, RequestStream] = {}
        logprobs = output.logprobs
        for i, (uid, token, finish, stop_token) in enumerate(output.rows()):
            place = self._places.get(uid)
            if place is None:
                continue
            stream, index = place
            stopped = stream.add(
                index, token, FINISH_REASONS[finish], None if stop_token < 0 else stop_token,
                logprobs[i] if logprobs else None, cached_tokens=output.cached_tokens.get(uid),
                prompt_logprobs=output.prompt_logprobs.get(uid), now=now,
            )  # fmt: skip
            if stopped:
                self._abort([uid])
            if stopped or finish:
                del self._places[uid]
            touched[id(stream)] = stream
        return iter(touched.values())


def _nobody(uids: list[int]) -> None:
    """The sequences of an engine that was closed need no abort."""
