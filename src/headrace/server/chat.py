"""/v1/chat/completions: messages through the model's template, one answer or a stream of chunks."""

from headrace.core.outputs import CompletionOutput, RequestOutput
from headrace.server.event_stream import EventStream
from headrace.server.generation import Answer, Prompt, generating, new_answer
from headrace.server.http import Exchange
from headrace.server.logprobs import TokenNames, chat_logprobs, prompt_logprobs
from headrace.server.protocol.chat import ChatCompletionRequest, ChatTemplateBody
from headrace.server.sse import ChunkFormat, encode_json
from headrace.server.state import ServerState
from headrace.server.usage import Usage

MESSAGE_CHARACTERS = 10
"""To put a message into the template takes as long as to tokenize so many characters."""


async def chat_completions(state: ServerState, exchange: Exchange) -> None:
    """Answer a chat request."""
    body = ChatCompletionRequest.parse(await exchange.body())
    answer = new_answer("chatcmpl", state.model_name(body.model), body.request_id)
    await answer_chat(state, exchange, body, answer, await templated_prompt(state, exchange, body))


async def answer_chat(
    state: ServerState, exchange: Exchange, body: ChatCompletionRequest, answer: Answer, prompt: Prompt
) -> None:
    """Answer `prompt`, whole or as a stream, as `body` asks for."""
    names = TokenNames(state.client.text.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
    with await generating(state, exchange, body, [prompt], answer) as submission:
        if body.stream:
            await EventStream(exchange, submission, _ChatEvents(body, answer, prompt, names)).run()
        else:
            [output] = await submission.results()
            await exchange.answer(encode_json(_whole(body, answer, prompt, output, names)))


async def templated_prompt(state: ServerState, exchange: Exchange, body: ChatTemplateBody) -> Prompt:
    """The prompt that the model's chat template makes of the messages."""
    tokenizer = state.client.text.tokenizer
    messages = [message.as_template_input() for message in body.messages]

    def work() -> Prompt:
        text = tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
            chat_template_kwargs=body.chat_template_kwargs,
        )
        return Prompt(tokenizer.encode(text, add_special_tokens=body.add_special_tokens), text)

    size = MESSAGE_CHARACTERS * len(messages)
    for message in messages:
        size += len(message["content"])
    return await state.off_loop(exchange, size, work)


def _whole(
    body: ChatCompletionRequest, answer: Answer, prompt: Prompt, output: RequestOutput, names: TokenNames
) -> dict[str, object]:
    usage = Usage(len(prompt.token_ids), len(prompt.told_token_ids))
    usage.count(0, output)
    choices = [_whole_choice(body, choice, names) for choice in output.outputs]
    whole = {**answer.fields("chat.completion"), "choices": choices, "usage": usage.fields()}
    if body.prompt_logprobs is not None:
        whole["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs, names)
    if body.return_token_ids:
        whole["prompt_token_ids"] = prompt.token_ids
    return whole


def _whole_choice(body: ChatCompletionRequest, choice: CompletionOutput, names: TokenNames) -> dict[str, object]:
    whole = {
        "index": choice.index,
        "message": {"role": "assistant", "content": choice.text, "refusal": None},
        "logprobs": _logprobs(body, choice, names),
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
    }
    if body.return_token_ids:
        whole["token_ids"] = choice.token_ids
    return whole


def _logprobs(body: ChatCompletionRequest, choice: CompletionOutput, names: TokenNames) -> dict[str, object] | None:
    if body.num_logprobs is None or choice.logprobs is None:
        return None
    return chat_logprobs(choice.token_ids, choice.logprobs, body.num_logprobs, names)


class _ChatEvents:
    """One streamed answer: the role, then text as it comes, then why it ended, then the counts if asked for."""

    def __init__(self, body: ChatCompletionRequest, answer: Answer, prompt: Prompt, names: TokenNames) -> None:
        options = body.stream_options
        self._body = body
        self._names = names
        self._prompt = prompt
        self.usage = Usage(len(prompt.token_ids), len(prompt.told_token_ids))
        self._final_usage = options is not None and options.include_usage
        self._running_usage = options is not None and options.continuous_usage_stats
        self._format = ChunkFormat(answer.fields("chat.completion.chunk"), usage_in_every_chunk=self._final_usage)
        self._plain = not self._running_usage and body.num_logprobs is None and not body.return_token_ids

    def first(self) -> bytes:
        """The role, for each choice."""
        return b"".join(self._first_chunk(index) for index in range(self._body.n or 1))

    def next(self, position: int, output: RequestOutput) -> bytes:
        """A chunk for each choice that has something new."""
        self.usage.count(position, output)
        return b"".join(self._next_chunk(choice) for choice in output.outputs)

    def around_text(self, position: int, number: int) -> tuple[bytes, bytes] | None:
        """A chunk of a plain stream, but for its text."""
        return self._format.around(*_around_content(number)) if self._plain else None

    def last(self) -> bytes:
        """The counts, if they were asked for."""
        return self._format.chunk(b"", self.usage.fields()) if self._final_usage else b""

    def _first_chunk(self, index: int) -> bytes:
        choice: dict[str, object] = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        if self._body.return_token_ids:
            choice["prompt_token_ids"] = self._prompt.token_ids
        return self._chunk(encode_json(choice))

    def _next_chunk(self, choice: CompletionOutput) -> bytes:
        if not self._plain or choice.finish_reason is not None:
            return self._chunk(self._choice(choice))
        head, tail = _around_content(choice.index)
        return self._chunk(head + encode_json(choice.text) + tail) if choice.text else b""

    def _chunk(self, choice: bytes) -> bytes:
        return self._format.chunk(choice, self.usage.fields() if self._running_usage else None)

    def _choice(self, choice: CompletionOutput) -> bytes:
        chunk = {
            "index": choice.index,
            "delta": {"content": choice.text} if choice.text else {},
            "logprobs": _logprobs(self._body, choice, self._names),
            "finish_reason": choice.finish_reason,
        }
        if choice.finish_reason is not None:
            chunk["stop_reason"] = choice.stop_reason
        if self._body.return_token_ids:
            chunk["token_ids"] = choice.token_ids
        return encode_json(chunk)


def _around_content(index: int) -> tuple[bytes, bytes]:
    """A choice that has nothing but text, before and after the text."""
    return b'{"index":%d,"delta":{"content":' % index, b'},"logprobs":null,"finish_reason":null}'
