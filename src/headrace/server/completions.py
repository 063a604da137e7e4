"""/v1/completions: texts or token ids as they are, several prompts in one request, echo."""

from collections.abc import Sequence

from headrace.core.outputs import CompletionOutput, RequestOutput, TokenLogprobs
from headrace.server.generation import Answer, Prompt, generating, new_answer
from headrace.server.http import Exchange
from headrace.server.logprobs import TokenNames, completion_logprobs, prompt_logprobs
from headrace.server.protocol.completions import CompletionRequest
from headrace.server.sse import DONE, ChunkFormat, encode_json
from headrace.server.state import ServerState
from headrace.server.submission import Submission
from headrace.server.usage import Usage

OBJECT = "text_completion"


async def completions(state: ServerState, exchange: Exchange) -> None:
    """Answer a completion request."""
    body = CompletionRequest.parse(await exchange.body())
    answer = new_answer("cmpl", state.model_name(body.model), body.request_id)
    prompts = await _prompts(state, body)
    names = TokenNames(state.client.text.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
    choices = _Choices(body, prompts, names)
    async with generating(state, exchange, body, prompts, answer) as submission:
        if body.stream:
            await _stream(exchange, body, answer, choices, submission)
        else:
            await exchange.answer(encode_json(_whole(answer, choices, await submission.results())))


async def _prompts(state: ServerState, body: CompletionRequest) -> list[Prompt]:
    """Token ids for each prompt; a prompt that came as ids is decoded only to be echoed."""
    tokenizer = state.client.text.tokenizer
    texts = [prompt for prompt in body.prompts if isinstance(prompt, str)]

    def work() -> list[Prompt]:
        encoded = iter(tokenizer.encode_batch(texts, add_special_tokens=body.add_special_tokens))
        return [
            Prompt(next(encoded), prompt) if isinstance(prompt, str) else Prompt(prompt, None)
            for prompt in body.prompts
        ]

    return await state.off_loop(sum(map(len, texts)), work)


def _whole(answer: Answer, choices: "_Choices", outputs: Sequence[RequestOutput]) -> dict[str, object]:
    usage = choices.new_usage()
    shapes = []
    for position, output in enumerate(outputs):
        shapes += choices.shapes(position, output)
        usage.count(position, output)
    return {**answer.fields(OBJECT), "choices": shapes, "usage": usage.fields()}


async def _stream(
    exchange: Exchange, body: CompletionRequest, answer: Answer, choices: "_Choices", submission: Submission
) -> None:
    options = body.stream_options
    final_usage = options is not None and options.include_usage
    running_usage = options is not None and options.continuous_usage_stats
    usage = choices.new_usage()
    chunks = ChunkFormat(answer.fields(OBJECT), usage_in_every_chunk=final_usage)
    async for position, output in submission.outputs():
        shapes = choices.shapes(position, output)
        usage.count(position, output)
        if not exchange.started:
            await exchange.start_stream()
        counts = usage.fields() if running_usage else None
        await exchange.write(b"".join(chunks.chunk(encode_json(shape), counts) for shape in shapes))
    last = chunks.chunk(b"", usage.fields()) if final_usage else b""
    await exchange.end_stream(last + DONE)


class _Choices:
    """Shapes the choices of one answer. Whole outputs and deltas go the same way: a whole one is one large delta."""

    def __init__(self, body: CompletionRequest, prompts: Sequence[Prompt], names: TokenNames) -> None:
        self._body = body
        self._prompts = prompts
        self._names = names
        self._begun: set[int] = set()
        self._offsets: dict[int, int] = {}
        self._prompt_logprobs: dict[int, list[TokenLogprobs | None]] = {}
        self._echoed = [self._echo_text(prompt) if body.echo else "" for prompt in prompts]

    def new_usage(self) -> Usage:
        """The counts of this answer, so far the prompts'."""
        return Usage(sum(len(prompt.token_ids) for prompt in self._prompts))

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
