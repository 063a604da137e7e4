"""What LlamaIndex's OpenAILike gets of a server. Arguments: its URL with /v1, the key, the model. Prints JSON."""

import asyncio
import json
import sys

import openai
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

URL, KEY, MODEL = sys.argv[1:]
PROMPT = "Once upon a"
CONVERSATION = [
    ChatMessage(role="system", content="You are a friendly assistant."),
    ChatMessage(role="user", content="My name is Ada."),
    ChatMessage(role="assistant", content="Hello Ada!"),
    ChatMessage(role="user", content="What is my name?"),
]


def model(*, is_chat_model=True, **changes):
    settings = {"api_base": URL, "api_key": KEY, "model": MODEL, "temperature": 0, "max_tokens": 12, "max_retries": 0}
    return OpenAILike(is_chat_model=is_chat_model, context_window=2_048, **(settings | changes))


def refused(call):
    try:
        call()
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "message": error.message}
    return None


def streamed():
    pieces = list(model().stream_chat(CONVERSATION))
    return {"text": pieces[-1].message.content, "pieces": len(pieces), "joined": "".join(each.delta for each in pieces)}


def chatted():
    answer = model().chat(CONVERSATION)
    usage = answer.raw.usage
    return {"text": answer.message.content, "prompt": usage.prompt_tokens, "completion": usage.completion_tokens}


async def asynchronously():
    answers = await asyncio.gather(*(model().achat(CONVERSATION) for _ in range(3)))
    pieces = [piece.delta async for piece in await model().astream_chat(CONVERSATION)]
    return [answer.message.content for answer in answers] + ["".join(pieces)]


plain = model(is_chat_model=False)
results = {
    "chat": chatted(),
    "stream": streamed(),
    "async": asyncio.run(asynchronously()),
    "complete through chat": model().complete("Hello!").text,
    "completion": {
        "whole": plain.complete("Once upon a").text,
        "stream": list(plain.stream_complete("Once upon a"))[-1].text,
    },
    "options": model(additional_kwargs={"seed": 5, "top_p": 0.9, "stop": ["\n\n"]}).complete("Hi").text,
    "wrong key": refused(lambda: model(api_key="wrong").complete("Hi")),
    "unknown model": refused(lambda: model(model="nobody").complete("Hi")),
    "too long": refused(lambda: model(max_tokens=10**6).complete("Hi")),
}
print(json.dumps(results))
