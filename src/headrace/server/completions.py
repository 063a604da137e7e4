"""/v1/completions: texts or token ids as they are, several prompts in one request, echo."""

from collections.abc import Sequence

from headrace.core.outputs import CompletionOutput, RequestOutput, TokenLogprobs
from headrace.server.event_stream import EventStream
from headrace.server.generation import Answer, Prompt, generating, new_answer
from headrace.server.http import Exchange
from headrace.server.logprobs import TokenNames, completion_logprobs, prompt_logprobs
from headrace.server.params import check_prompts
from headrace.server.protocol.completions import CompletionRequest
from headrace.server.sse import ChunkFormat, encode_json
from headrace.server.state import ServerState
from headrace.server.usage import Usage

OBJECT = "text_completion"


async def completions(state: ServerState, exchange: Exchange) -> None:
    """Answer a completion request."""
    body = CompletionRequest.parse(await exchange.body())
    answer = new_answer("cmpl", state.model_name(body.model), body.request_id)
    await answer_completions(state, exchange, body, answer, await tokenized_prompts(state, exchange, body))


async def answer_completions(
    state: ServerState, exchange: Exchange, body: CompletionRequest, answer: Answer, prompts: Sequence[Prompt]
) -> None:
    """Answer `prompts`, whole or as a stream, as `body` asks for."""
    choices = await _choices(state, exchange, body, prompts)
    with await generating(state, exchange, body, prompts, answer) as submission:
        if body.stream:
            await EventStream(exchange, submission, _CompletionEvents(body, answer, choices)).run()
        else:
            await exchange.answer(encode_json(_whole(answer, choices, await submission.results())))


async def tokenized_prompts(state: ServerState, exchange: Exchange, body: CompletionRequest) -> list[Prompt]:
    """Token ids for each prompt."""
    tokenizer = state.client.text.tokenizer
    texts = [prompt for prompt in body.prompts if isinstance(prompt, str)]

    def work() -> list[Prompt]:
        encoded = iter(tokenizer.encode_batch(texts, add_special_tokens=body.add_special_tokens))
        return [
            Prompt(next(encoded), prompt) if isinstance(prompt, str) else Prompt(prompt, None)
            for prompt in body.prompts
        ]

    return await state.off_loop(exchange, sum(map(len, texts)), work)


async def _choices(
    state: ServerState, exchange: Exchange, body: CompletionRequest, prompts: Sequence[Prompt]
) -> "_Choices":
    """The choices to come. Token ids are decoded to be echoed or measured, so they are checked before."""
    names = TokenNames(state.client.text.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
    size = sum(len(each.token_ids) + len(each.told_token_ids) for each in prompts if body.echo or each.told_token_ids)

    def work() -> _Choices:
        if size:
            check_prompts(body, [(each.token_ids, each.told_token_ids) for each in prompts], state)
        return _Choices(body, prompts, names)

    return await state.off_loop(exchange, size, work)


def _whole(answer: Answer, choices: "_Choices", outputs: Sequence[RequestOutput]) -> dict[str, object]:
    usage = choices.new_usage()
    shapes = []
    for position, output in enumerate(outputs):
        shapes += choices.shapes(position, output)
        usage.count(position, output)
    return {**answer.fields(OBJECT), "choices": shapes, "usage": usage.fields()}


class _CompletionEvents:
    """One streamed answer: text as it comes, at its end why it ended, then the counts if they were asked for."""

    def __init__(self, body: CompletionRequest, answer: Answer, choices: "_Choices") -> None:
        options = body.stream_options
        self._choices = choices
        self._n = body.n or 1
        self._final_usage = options is not None and options.include_usage
        self._running_usage = options is not None and options.continuous_usage_stats
        self._format = ChunkFormat(answer.fields(OBJECT), usage_in_every_chunk=self._final_usage)
        self._plain = not self._running_usage and choices.plain
        self.usage = choices.new_usage()

    def first(self) -> bytes:
        """Nothing: the first text says as much."""
        return b""

    def next(self, position: int, output: RequestOutput) -> bytes:
        """A chunk for each choice that has something new."""
        shapes = self._choices.shapes(position, output)
        self.usage.count(position, output)
        told = [shape for shape in shapes if shape["text"] or shape["finish_reason"] or not self._plain]
        usage = self.usage.fields() if self._running_usage else None
        return b"".join(self._format.chunk(encode_json(shape), usage) for shape in told)

    def around_text(self, position: int, number: int) -> tuple[bytes, bytes] | None:
        """A chunk of a plain stream, but for its text."""
        head = b'{"index":%d,"text":' % (position * self._n + number)
        tail = b',"logprobs":null,"finish_reason":null,"stop_reason":null}'
        return self._format.around(head, tail) if self._plain else None

    def last(self) -> bytes:
        """The counts, if they were asked for."""
        return self._format.chunk(b"", self.usage.fields()) if self._final_usage else b""


class _Choices:
    """Shapes the choices of one answer. Whole outputs and deltas go the same way: a whole one is one large delta."""

    def __init__(self, body: CompletionRequest, prompts: Sequence[Prompt], names: TokenNames) -> None:
        self._body = body
        self._prompts = prompts
        self._names = names
        self._begun: set[int] = set()
        self._offsets = {
            number: sum(len(names.name(token_id)) for token_id in prompt.shown_token_ids)
            for number, prompt in enumerate(prompts)
            if prompt.told_token_ids and body.num_logprobs is not None
        }
        self._prompt_logprobs: dict[int, list[TokenLogprobs | None]] = {}
        self._echoed = [self._echo_text(prompt) if body.echo else "" for prompt in prompts]

    @property
    def plain(self) -> bool:
        """Whether a choice that has begun carries nothing but text until its end."""
        body = self._body
        return body.num_logprobs is None and body.prompt_logprobs is None and not body.return_token_ids

    def new_usage(self) -> Usage:
        """The counts of this answer, so far the prompts'."""
        prompts = self._prompts
        return Usage(sum(len(each.token_ids) for each in prompts), sum(len(each.told_token_ids) for each in prompts))

    def shapes(self, position: int, output: RequestOutput) -> list[dict[str, object]]:
        """The choices in `output`, numbered over all prompts."""
        if self._body.prompt_only:
            for choice in output.outputs:
                _drop_generated(choice)
        if output.prompt_logprobs is not None:  # in a stream they come once, with the first choice that begins
            self._prompt_logprobs[position] = output.prompt_logprobs
        return [self._shape(position, choice) for choice in output.outputs]

    def _shape(self, position: int, choice: CompletionOutput) -> dict[str, object]:
        index = position * (self._body.n or 1) + choice.index
        first = index not in self._begun
        self._begun.add(index)
        shape: dict[str, object] = {
            "index": index,
            "text": self._echoed[position] + choice.text if first else choice.text,
            "logprobs": self._logprobs(index, position, choice, echo=first and bool(self._body.echo)),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if self._body.prompt_logprobs is not None:
            shape["prompt_logprobs"] = prompt_logprobs(self._prompt_logprobs.get(position), self._names)
        if self._body.return_token_ids:
            shape["token_ids"] = choice.token_ids
            if first:
                shape["prompt_token_ids"] = self._prompts[position].token_ids
        return shape

    def _logprobs(self, index: int, position: int, choice: CompletionOutput, *, echo: bool) -> dict[str, object] | None:
        num_top = self._body.num_logprobs
        if num_top is None:
            return None
        token_ids: list[int] = list(choice.token_ids)
        logprobs: list[TokenLogprobs | None] = list(choice.logprobs or [])
        if echo:
            token_ids = self._prompts[position].token_ids + token_ids
            logprobs = self._prompt_logprobs[position] + logprobs
        offset = self._offsets.get(index, 0)
        shape, self._offsets[index] = completion_logprobs(token_ids, logprobs, num_top, self._names, offset)
        return shape

    def _echo_text(self, prompt: Prompt) -> str:
        if prompt.text is not None:
            return prompt.text
        return self._names.text(prompt.token_ids)


def _drop_generated(choice: CompletionOutput) -> None:
    """max_tokens=0: the one token that had to be sampled is not part of the answer."""
    choice.text, choice.token_ids, choice.finish_reason, choice.stop_reason = "", [], "length", None
    if choice.logprobs is not None:
        choice.logprobs = []
