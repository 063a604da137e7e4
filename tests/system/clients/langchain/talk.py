"""What LangChain's classes get of a server. Arguments: its URL with /v1, the key, the model. Prints one JSON object."""

import asyncio
import json
import sys

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI

URL, KEY, MODEL = sys.argv[1:]
SCHEMA = {"title": "Name", "description": "d", "type": "object", "properties": {"name": {"type": "string"}}}
CONVERSATION = [
    SystemMessage("You are a friendly assistant."),
    HumanMessage("My name is Ada."),
    AIMessage("Hello Ada!"),
    HumanMessage("What is my name?"),
]


def chat(**changes):
    settings = {"base_url": URL, "api_key": KEY, "model": MODEL, "temperature": 0, "max_tokens": 12, "max_retries": 0}
    return ChatOpenAI(**(settings | changes))


def completion(**changes):
    return OpenAI(base_url=URL, api_key=KEY, model=MODEL, temperature=0, max_tokens=12, max_retries=0, **changes)


def refused(call):
    try:
        call()
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "message": error.message}
    return None


def streamed():
    pieces = list(chat(stream_usage=True).stream(CONVERSATION))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    return {"text": whole.content, "pieces": len(pieces), "usage": whole.usage_metadata}


async def asynchronously():
    one, *more = await asyncio.gather(*(chat().ainvoke(CONVERSATION) for _ in range(3)))
    streamed = "".join([piece.content async for piece in chat().astream(CONVERSATION)])
    return {"same": all(each.content == one.content for each in more) and streamed == one.content, "text": one.content}


def invoked():
    answer = chat().invoke(CONVERSATION)
    return {"text": answer.content, "usage": answer.usage_metadata, "metadata": answer.response_metadata}


def all_options():
    sampling = {"seed": 5, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.1, "n": 2, "stop": ["\n\n"]}
    answer = chat(temperature=0.7, **sampling).generate([CONVERSATION])
    return {"choices": len(answer.generations[0])}


def chain():
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "Say {word}.")])
    return (prompt | chat() | StrOutputParser()).invoke({"word": "hello"})


results = {
    "invoke": invoked(),
    "stream": streamed(),
    "batch": [answer.content for answer in chat().batch([CONVERSATION, "Hello!"])],
    "async": asyncio.run(asynchronously()),
    "chain": chain(),
    "options": all_options(),
    "logprobs": len(chat(logprobs=True, top_logprobs=2).invoke("Hi").response_metadata["logprobs"]["content"]),
    "completion": {"whole": completion().invoke("Once upon a"), "stream": "".join(completion().stream("Once upon a"))},
    "wrong key": refused(lambda: chat(api_key="wrong").invoke("Hi")),
    "unknown model": refused(lambda: chat(model="nobody").invoke("Hi")),
    "too long": refused(lambda: chat(max_tokens=10**6).invoke("Hi")),
    "tools": refused(lambda: chat().bind_tools([{"name": "f", "description": "f", "parameters": {}}]).invoke("Hi")),
    "schema": refused(lambda: chat().with_structured_output(SCHEMA).invoke("Hi")),
}
print(json.dumps(results))
