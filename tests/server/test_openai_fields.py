"""Every field that OpenAI documents for its two routes, sent by its own client: what it does here, or its refusal.

The fields are taken from the client's own types, so that one which nobody thought of fails a test. Answers are held to
the client's own types too.
"""

import json
import typing
from dataclasses import dataclass, field

import openai
import pytest
from openai.types import Completion, completion_create_params
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat import completion_create_params as chat_create_params

from headrace.server.engine_client import EngineClient

SAID = "Hello wörld 🙂!"
HI = [{"role": "user", "content": "Hi"}]


@dataclass
class Does:
    """A value of a field; with it, `params` reach the engine and `seen` is true of the answer."""

    value: object
    params: dict[str, object] = field(default_factory=dict)
    seen: typing.Callable[[typing.Any], bool] = lambda answer: True
    others: dict[str, object] = field(default_factory=dict)


@dataclass
class Refused:
    """A value that is refused by the field's name."""

    value: object


def text_of(answer):
    [choice] = answer.choices
    return choice.message.content if hasattr(choice, "message") else choice.text


def joined(stream):
    parts = [choice for chunk in stream for choice in chunk.choices]
    return "".join((part.delta.content if hasattr(part, "delta") else part.text) or "" for part in parts)


OF_BOTH = {
    "model": [Does("alias", seen=lambda answer: answer.model == "alias")],
    "frequency_penalty": [Does(0.5, {"frequency_penalty": 0.5}), Does(None, {"frequency_penalty": 0.0}), Refused(3)],
    "presence_penalty": [Does(-1, {"presence_penalty": -1}), Refused(-2.5)],
    "logit_bias": [Does({"5": 7}, {"logit_bias": {5: 7.0}}), Refused({"x": 1}), Refused({"5": "a"})],
    "max_tokens": [Does(5, {"max_tokens": 5}, lambda answer: text_of(answer) == "Hello"), Refused(0)],
    "n": [Does(2, {"n": 2}, lambda answer: [choice.index for choice in answer.choices] == [0, 1]), Refused(0)],
    "seed": [Does(7, {"seed": 7}), Refused(1.5)],
    "stop": [
        Does("wör", {"stop": "wör"}, lambda answer: text_of(answer) == "Hello "),
        Does(["x", "ld"], {"stop": ["x", "ld"]}, lambda answer: text_of(answer) == "Hello wör"),
        Does(None, {"stop": None}),
        Refused(5),
        Refused(["a"] * 2_000),
    ],
    "stream": [Does(True, seen=lambda answer: joined(answer) == SAID), Refused("yes")],
    "stream_options": [
        Does({"include_usage": True}, seen=lambda answer: list(answer)[-1].usage is not None, others={"stream": True}),
        Refused({"include_usage": True}),
    ],
    "temperature": [Does(0.3, {"temperature": 0.3}), Does(0, {"temperature": 0}), Refused(2.1), Refused("hot")],
    "top_p": [Does(0.5, {"top_p": 0.5}), Refused(0)],
    "user": [Does("somebody")],
}

CHAT = OF_BOTH | {
    "messages": [Does(HI), Refused([]), Refused([{"role": "user", "content": [{"type": "image_url"}]}])],
    "audio": [Refused({"voice": "alloy", "format": "wav"})],
    "function_call": [Does("none"), Refused("auto")],
    "functions": [Does([]), Refused([{"name": "f"}])],
    "logprobs": [
        Does(True, {"logprobs": 0}, lambda answer: answer.choices[0].logprobs.content[0].token == "H"),
        Does(False, {"logprobs": None}, lambda answer: answer.choices[0].logprobs is None),
    ],
    "top_logprobs": [
        Does(
            2,
            {"logprobs": 2},
            lambda answer: len(answer.choices[0].logprobs.content[0].top_logprobs) == 2,
            {"logprobs": True},
        ),
        Refused(2),
    ],
    "max_completion_tokens": [Does(5, {"max_tokens": 5}, lambda answer: text_of(answer) == "Hello"), Refused(0)],
    "metadata": [Does({"a": "b"})],
    "modalities": [Does(["text"]), Refused(["text", "audio"])],
    "moderation": [Refused({"model": "omni-moderation-latest"})],
    "parallel_tool_calls": [Does(True), Does(False)],
    "prediction": [Refused({"type": "content", "content": "a"})],
    "prompt_cache_key": [Does("a")],
    "prompt_cache_options": [Does({"mode": "implicit"})],
    "prompt_cache_retention": [Does("24h")],
    "reasoning_effort": [Refused("low")],
    "response_format": [
        Does({"type": "text"}),
        Refused({"type": "json_object"}),
        Refused({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}),
    ],
    "safety_identifier": [Does("a")],
    "service_tier": [Does("auto"), Does("default"), Refused("flex")],
    "store": [Does(False), Refused(True)],
    "tool_choice": [Does("none"), Refused("auto"), Refused("required")],
    "tools": [Does([]), Refused([{"type": "function", "function": {"name": "f"}}])],
    "verbosity": [Refused("low")],
    "web_search_options": [Refused({})],
}

TEXT = OF_BOTH | {
    "prompt": [
        Does("Once"),
        Does(["Once", "Twice"], seen=lambda answer: len(answer.choices) == 2),
        Does([5, 6]),
        Does([[5], [6]], seen=lambda answer: len(answer.choices) == 2),
        Refused(None),
        Refused(["a", 1]),
    ],
    "best_of": [Does(1), Refused(3)],
    "echo": [Does(True, seen=lambda answer: text_of(answer) == f"Once{SAID}")],
    "logprobs": [Does(2, {"logprobs": 2}, lambda answer: len(answer.choices[0].logprobs.top_logprobs[0]) == 2)],
    "suffix": [Does(""), Refused("the end")],
}


def documented(*params):
    return {name for each in params for name in typing.get_type_hints(each)}


def test_no_documented_field_is_forgotten():
    kinds = ("CompletionCreateParamsNonStreaming", "CompletionCreateParamsStreaming")
    assert documented(*(getattr(chat_create_params, kind) for kind in kinds)) == CHAT.keys()
    assert documented(*(getattr(completion_create_params, kind) for kind in kinds)) == TEXT.keys()


@pytest.fixture
def sent(monkeypatch):
    """What was sent to the engine."""
    requests, submit = [], EngineClient.submit

    def recording(self, requests_to_send, *arguments, **keywords):
        requests.extend(add for add, _ in requests_to_send)
        return submit(self, requests_to_send, *arguments, **keywords)

    monkeypatch.setattr(EngineClient, "submit", recording)
    return requests


def cases(table, kind):
    return [
        pytest.param(name, case, id=f"{name}-{case.value}")
        for name, each in table.items()
        for case in each
        if isinstance(case, kind)
    ]


def ask_chat(server, **fields):
    return server.client().chat.completions.create(**{"model": "fake-model", "messages": HI, **fields})


def ask_text(server, **fields):
    return server.client().completions.create(**{"model": "fake-model", "prompt": "Once", "max_tokens": 50, **fields})


@pytest.mark.parametrize(("name", "case"), cases(CHAT, Does))
def test_a_chat_field_does_what_it_says(server, sent, name, case):
    check_does(ask_chat(server, **case.others, **{name: case.value}), sent, case)


@pytest.mark.parametrize(("name", "case"), cases(TEXT, Does))
def test_a_text_field_does_what_it_says(server, sent, name, case):
    check_does(ask_text(server, **case.others, **{name: case.value}), sent, case)


def check_does(answer, sent, case):
    assert case.seen(answer)
    assert {name: getattr(sent[0].params, name) for name in case.params} == case.params


@pytest.mark.parametrize(("name", "case"), cases(CHAT, Refused))
def test_a_chat_value_is_refused_by_name(server, sent, name, case):
    check_refused(lambda: ask_chat(server, **{name: case.value}), sent, name)


@pytest.mark.parametrize(("name", "case"), cases(TEXT, Refused))
def test_a_text_value_is_refused_by_name(server, sent, name, case):
    check_refused(lambda: ask_text(server, **{name: case.value}), sent, name)


def check_refused(ask, sent, name):
    with pytest.raises(openai.BadRequestError) as caught:
        ask()
    assert name in caught.value.param if caught.value.param else name in caught.value.message
    assert not sent


SHAPES = [
    {},
    {"n": 2},
    {"stop": "wör"},
    {"max_tokens": 3},
    {"logprobs": True, "top_logprobs": 2},
    {"extra_body": {"return_token_ids": True, "prompt_logprobs": 1}},
]
STREAMED_SHAPES = [
    *SHAPES[:-1],
    {"stream_options": {"include_usage": True}},
    {"extra_body": {"return_token_ids": True, "stream_options": {"continuous_usage_stats": True}}},
]


def of_text(fields):
    """The same, as the fields of the text route are called."""
    if "top_logprobs" not in fields:
        return fields
    return {"logprobs": fields["top_logprobs"]}


def raw(create, **fields):
    """The parsed JSON of the answer, or of each event."""
    response = create.with_raw_response.create(model="fake-model", **fields)
    if not fields.get("stream"):
        return [response.http_response.json()]
    lines = response.http_response.iter_lines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("fields", SHAPES, ids=str)
def test_whole_answers_have_openais_shape(server, fields):
    client = server.client()
    [chat] = raw(client.chat.completions, messages=HI, **fields)
    ChatCompletion.model_validate(chat, strict=True)
    [text] = raw(client.completions, prompt="Once", **of_text(fields))
    Completion.model_validate(text, strict=True)


@pytest.mark.parametrize("fields", STREAMED_SHAPES, ids=str)
def test_every_event_has_openais_shape(server, fields):
    client = server.client()
    chunks = raw(client.chat.completions, messages=HI, stream=True, **fields)
    assert len(chunks) > 1
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    for chunk in raw(client.completions, prompt="Once", stream=True, **of_text(fields)):
        # the client has one type for answers and events, but an event's finish_reason is null until the last
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        Completion.model_validate(chunk, strict=True)
