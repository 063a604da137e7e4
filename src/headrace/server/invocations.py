"""/invocations, the one route that SageMaker calls: OpenAI's bodies, and Hugging Face's `inputs` and `parameters`."""

from collections.abc import Awaitable, Callable, Sequence

from headrace.core.outputs import CompletionOutput, RequestOutput, TokenLogprobs
from headrace.server.chat import chat_completions
from headrace.server.completions import completions, tokenized_prompts
from headrace.server.errors import ApiError
from headrace.server.event_stream import EventStream
from headrace.server.forms import forms_of
from headrace.server.generation import Prompt, generating, new_answer
from headrace.server.http import Exchange
from headrace.server.logprobs import finite
from headrace.server.protocol.invocations import GenerateCompletion, GenerateRequest
from headrace.server.sse import encode_json
from headrace.server.state import ServerState
from headrace.server.usage import Usage
from headrace.text.tokenizer import Tokenizer


async def invocations(state: ServerState, exchange: Exchange) -> None:
    """Answer as the route does that the body is for."""
    await _route_of(await exchange.body())(state, exchange)


def _route_of(raw: bytes) -> Callable[[ServerState, Exchange], Awaitable[None]]:
    match forms_of(raw):
        case ["inputs"]:
            return generate
        case ["messages"]:
            return chat_completions
        case ["prompt"]:
            return completions
        case [_, second, *_] as several:
            what, fix = f"The request body has {' and '.join(several)}", "Send one of inputs, messages and prompt"
            raise ApiError(what, rule="Each asks for another kind of answer", fix=fix, param=second)
    raise ApiError(
        "The request body has none of inputs, messages and prompt",
        rule="One of them, in a JSON object, says what is to be answered",
        fix='Send for example {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 100}}',
        param="inputs",
        code="missing_required_parameter",
    )


async def generate(state: ServerState, exchange: Exchange) -> None:
    """Answer Hugging Face's body as its containers do: a list, or text-generation-inference's events."""
    asked = GenerateRequest.parse(await exchange.body())
    body = asked.as_completion()
    answer = new_answer("gen", state.model_name(body.model), None)
    prompts = await tokenized_prompts(state, exchange, body)
    shapes = _Shapes(asked, body, state.client.text.tokenizer)
    with await generating(state, exchange, body, prompts, answer) as submission:
        if body.stream:
            await EventStream(exchange, submission, _GenerateEvents(shapes, prompts[0]), mark=b"").run()
        else:
            texts = [shapes.whole(*each) for each in zip(prompts, await submission.results(), strict=True)]
            await exchange.answer(encode_json(texts if isinstance(asked.inputs, list) else texts[0]))


class _GenerateEvents:
    """One streamed answer: an event a token, of which the last has the whole text."""

    def __init__(self, shapes: "_Shapes", prompt: Prompt) -> None:
        self._shapes = shapes
        self._prompt = prompt
        self._text = shapes.beginning(prompt)
        self.usage = Usage(len(prompt.token_ids))

    def first(self) -> bytes:
        """Nothing: the first token says as much."""
        return b""

    def next(self, position: int, output: RequestOutput) -> bytes:
        """An event for each new token."""
        [choice] = output.outputs
        self._text += choice.text
        events = self._shapes.events(choice, self.usage.completion_tokens)
        self.usage.count(position, output)
        if choice.finish_reason is not None:
            details = self._shapes.end(choice, self.usage.completion_tokens, self._prompt)
            events[-1] |= {"generated_text": self._text, "details": details}
        return b"".join(b"data:" + encode_json(event) + b"\n\n" for event in events)

    def around_text(self, position: int, number: int) -> tuple[bytes, bytes] | None:
        """None: every event carries its token's id and log probability."""
        return None

    def last(self) -> bytes:
        """Nothing: the last token's event has it all."""
        return b""


class _Shapes:
    """Shapes what is answered to one request."""

    def __init__(self, asked: GenerateRequest, body: GenerateCompletion, tokenizer: Tokenizer) -> None:
        self._parameters = asked.asked
        self._seed = body.seed
        self._tokenizer = tokenizer

    def beginning(self, prompt: Prompt) -> str:
        """What the text begins with: the prompt, if that is asked for."""
        return (prompt.text or "") if self._parameters.return_full_text else ""

    def whole(self, prompt: Prompt, output: RequestOutput) -> list[dict[str, object]]:
        """The texts for one prompt."""
        return [self._text(self.beginning(prompt), choice) for choice in output.outputs]

    def events(self, choice: CompletionOutput, num_before: int) -> list[dict[str, object]]:
        """An event a token. Texts join to the whole text: where several tokens came at once, the last one has it."""
        tokens = self._tokens(choice.token_ids, choice.logprobs or ())
        if not tokens:  # it ended without a token, or with text that was held back
            tokens = [{"id": self._tokenizer.eos_token_id or 0, "text": "", "logprob": None, "special": True}]
        for token in tokens[:-1]:
            token["text"] = ""
        tokens[-1]["text"] = choice.text
        return [
            {"index": num_before + number, "token": token, "generated_text": None, "details": None}
            for number, token in enumerate(tokens, 1)
        ]

    def end(self, choice: CompletionOutput, num_tokens: int, prompt: Prompt) -> dict[str, object] | None:
        """The details of a stream's last event."""
        details = {"finish_reason": _finish_reason(choice), "generated_tokens": num_tokens, "seed": self._seed}
        return {**details, "input_length": len(prompt.token_ids)} if self._parameters.details else None

    def _text(self, beginning: str, choice: CompletionOutput) -> dict[str, object]:
        text: dict[str, object] = {"generated_text": beginning + choice.text}
        if self._parameters.details:
            text["details"] = {
                "finish_reason": _finish_reason(choice),
                "generated_tokens": len(choice.token_ids),
                "seed": self._seed,
                "prefill": [],
                "tokens": self._tokens(choice.token_ids, choice.logprobs or ()),
            }
        return text

    def _tokens(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs]) -> list[dict[str, object]]:
        return [self._token(*each) for each in zip(token_ids, logprobs, strict=True)]

    def _token(self, token_id: int, logprobs: TokenLogprobs) -> dict[str, object]:
        return {
            "id": token_id,
            "text": self._tokenizer.token_text(token_id),
            "logprob": finite(logprobs[token_id].logprob),
            "special": token_id in self._tokenizer.special_ids,
        }


def _finish_reason(choice: CompletionOutput) -> str:
    """In the words of text-generation-inference."""
    if choice.finish_reason != "stop":
        return choice.finish_reason or "error"
    return "stop_sequence" if isinstance(choice.stop_reason, str) else "eos_token"
