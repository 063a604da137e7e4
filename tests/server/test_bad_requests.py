"""What bad input gets: a 4xx in OpenAI's envelope that names the field, the rule and the fix."""

import gzip
import json
import re
import time

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.server.protocol.chat import ChatCompletionRequest
from headrace.server.protocol.completions import CompletionRequest
from headrace.server.protocol.invocations import GenerateParameters, GenerateRequest
from headrace.server.protocol.tokens import DetokenizeRequest, TokenizeTextRequest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "Hi"}]
LONG = "x" * 300
FUNCTION = [{"role": "function", "content": "a"}]
PIRATE = [{"role": "pirate", "content": "a"}]
NOTHING = [{"role": "user", "content": None}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]
STRANGE = [{"role": "user", "content": "a", "x": 1}]


def part(**fields):
    return [{"role": "user", "content": [fields]}]


SMUGGLED = {"chat_template": "x"}


def chat(**fields):
    return {"model": "fake-model", "messages": HI, **fields}


def text(**fields):
    return {"model": "fake-model", "prompt": "Hi", **fields}


def error_of(response, status=400):
    assert response.headers["content-type"] == "application/json"
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


BAD = {
    "unknown field": (CHAT, chat(temprature=1), "temprature", "Unrecognized request argument"),
    "unknown field in a message": (CHAT, chat(messages=STRANGE), "messages.0.x", "x"),
    "a number as a string": (CHAT, chat(temperature="hot"), "temperature", "'hot'"),
    "a string where a number belongs": (CHAT, chat(max_tokens="5"), "max_tokens", "must be an integer. Send"),
    "temperature -1": (CHAT, chat(temperature=-1), "temperature", "-1.*between 0 and 2"),
    "temperature 2.5": (CHAT, chat(temperature=2.5), "temperature", "between 0 and 2"),
    "top_p 0": (TEXT, text(top_p=0), "top_p", "between"),
    "top_p 1.1": (TEXT, text(top_p=1.1), "top_p", "at most 1|and 1"),
    "n 0": (TEXT, text(n=0), "n", "at least 1|between 1"),
    "greedy n 2": (TEXT, text(n=2, temperature=0), "n", "n=1"),
    "presence_penalty 3": (TEXT, text(presence_penalty=3), "presence_penalty", "at most 2|and 2"),
    "min over max": (TEXT, text(min_tokens=9, max_tokens=3), "min_tokens", "max_tokens"),
    "max_tokens 0": (CHAT, chat(max_tokens=0), "max_tokens", "at least 1"),
    "no messages": (CHAT, chat(messages=[]), "messages", "at least 1 item"),
    "messages missing": (CHAT, {"model": "fake-model"}, "messages", "missing"),
    "a role that the template refuses": (CHAT, chat(messages=FUNCTION), "messages", "No functions"),
    "a role that no one knows": (CHAT, chat(messages=PIRATE), "messages.0.role", "'system', .*'function'"),
    "a user who says null": (CHAT, chat(messages=NOTHING), "messages.0.content", "role user has no content.*Add its"),
    "a user who says nothing": (CHAT, chat(messages=[{"role": "user"}]), "messages.0.content", "no content"),
    "an image": (CHAT, chat(messages=IMAGE), "messages.0.content.0.type", "image_url is not supported: this model"),
    "an image among text": (CHAT, chat(messages=part(type="text", text="a", image_url={})),
                            "messages.0.content.0.image_url", "image_url is not supported"),
    "a video": (CHAT, chat(messages=part(type="video", video=[])), "messages.0.content.0.type", "video is not supp"),
    "a part misspelt": (CHAT, chat(messages=part(type="text", txt="a")), "messages.0.content.0.txt", "mean text"),
    "a part that is none": (CHAT, chat(messages=[{"role": "user", "content": [5]}]), "messages.0.content.0", "object"),
    "content that is none": (CHAT, chat(messages=[{"role": "user", "content": 5}]), "messages.0.content",
                             "a string or a list"),
    "messages as text": (CHAT, chat(messages="Hi"), "messages", r"must be a list. Send a list: \[...\]"),
    "a null where none goes": (CHAT, chat(stream=None), "stream", "stream is null. It must be true or false"),
    "a boolean as a string": (CHAT, chat(stream="yes"), "stream", "'yes'. It must be true or false. Send .* quotes"),
    "options that are no object": (CHAT, chat(stream_options=5), "stream_options", "must be an object. Send"),
    "an endless id": (CHAT, chat(request_id="a" * 300), "request_id", "at most 256 characters. Shorten"),
    "a field misspelt": (CHAT, chat(max_token=5), "max_token", r"Did you mean max_tokens\?"),
    "a parameter misspelt": ("/invocations", {"inputs": "a", "parameters": {"max_new_token": 5}},
                             "parameters.max_new_token", r"Did you mean max_new_tokens\?"),
    "inputs that are none": ("/invocations", {"inputs": []}, "inputs", "a list of strings that is not empty"),
    "two forms at once": ("/invocations", {"inputs": "a", "prompt": "b"}, "prompt", "Send one of inputs, messages"),
    "too many choices": (TEXT, text(n=99_999), "n", "^n is 99999"),
    "prompt missing": (TEXT, {"model": "fake-model"}, "prompt", "missing"),
    "prompt empty": (TEXT, text(prompt=""), "prompt", "at least one token"),
    "prompt null": (TEXT, text(prompt=None), "prompt", "empty"),
    "prompt list empty": (TEXT, text(prompt=[]), "prompt", "empty"),
    "prompt mixed": (TEXT, text(prompt=["a", 1]), "prompt", "list of strings"),
    "prompt object": (TEXT, text(prompt={"a": 1}), "prompt", "list of strings"),
    "one empty prompt among others": (TEXT, text(prompt=["a", ""]), "prompt", "at least one token"),
    "a token id outside the vocabulary": (TEXT, text(prompt=[1, 259]), "prompt", "259.*0 to 258"),
    "a negative token id": (TEXT, text(prompt=[-1]), "prompt", "-1"),
    "logit_bias outside the vocabulary": (TEXT, text(logit_bias={"999": 1}), "logit_bias", "999"),
    "logit_bias of no token": (TEXT, text(logit_bias={"x": 1}), "logit_bias", "'x'"),
    "allowed_token_ids outside": (TEXT, text(allowed_token_ids=[5, 999]), "allowed_token_ids", "999"),
    "stop_token_ids outside": (TEXT, text(stop_token_ids=[999]), "stop_token_ids", "999"),
    "prompt longer than the context": (TEXT, text(prompt=LONG), "prompt", "300 tokens.*256"),
    "chat longer than the context": (CHAT, chat(messages=[{"role": "user", "content": LONG}]), "messages", "256"),
    "max_tokens beyond the context": (TEXT, text(max_tokens=300), "max_tokens", "300 .* 2 tokens.*256.*254"),
    "max_completion_tokens beyond": (CHAT, chat(max_completion_tokens=300), "max_completion_tokens", "256"),
    "top_logprobs without logprobs": (CHAT, chat(top_logprobs=2), "top_logprobs", "logprobs to true"),
    "too many top_logprobs": (CHAT, chat(logprobs=True, top_logprobs=6), "top_logprobs", "At most 5"),
    "too many logprobs": (TEXT, text(logprobs=6), "logprobs", "At most 5"),
    "the whole vocabulary": (TEXT, text(logprobs=-1), "logprobs", "At most 5"),
    "stream_options without stream": (TEXT, text(stream_options={"include_usage": True}), "stream_options", "stream"),
    "unknown stream option": (TEXT, text(stream=True, stream_options={"x": 1}), "stream_options.x", "x"),
    "prompt_logprobs in a stream": (CHAT, chat(prompt_logprobs=1, stream=True), "prompt_logprobs", "stream"),
    "an empty stop string": (CHAT, chat(stop=["a", ""]), "stop", "empty"),
    "a template from the client": (CHAT, chat(chat_template="{{ 1 }}"), "chat_template", "--chat-template"),
    "the same by another way": (CHAT, chat(chat_template_kwargs=SMUGGLED), "chat_template_kwargs", "Leave out"),
    "a template's self": (CHAT, chat(chat_template_kwargs={"self": 1, "chat_template": ""}), None, "names"),
    "a priority beyond 64 bits": (CHAT, chat(priority=2**70), "priority", "less than or equal to"),
    "a priority beyond them below": (TEXT, text(priority=-(2**70)), "priority", "greater than or equal to"),
    "two endings": (CHAT, chat(continue_final_message=True), "continue_final_message", "add_generation_prompt"),
    "an array": (CHAT, [1], None, "object"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(server, case):
    path, body, param, message = BAD[case]
    error = error_of(server.post(path, body))
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param
    assert re.search(message, error["message"]), error["message"]


HUGE = 2**70
INTEGERS = dict.fromkeys(
    ("seed", "top_k", "n", "min_tokens", "max_tokens", "logprobs", "prompt_logprobs", "priority"), HUGE
) | {"stop_token_ids": [HUGE], "allowed_token_ids": [HUGE], "logit_bias": {str(HUGE): 1}, "prompt": [HUGE]}


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_beyond_64_bits_is_an_error_of_the_client_and_leaves_nothing_open(server, name, sign):
    value = INTEGERS[name]
    body = text(**{name: sign * value if isinstance(value, int) else value})
    assert 200 <= server.post(TEXT, body).status_code < 500
    server.wait_until(lambda: not any(server.get("/load").json().values()))


UNSUPPORTED_IN_CHAT = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "auto",
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "response_format": {"type": "json_object"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "a"},
    "prediction": {"type": "content"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "web_search_options": {},
    "store": True,
    "service_tier": "flex",
    "documents": [{"text": "a"}],
    "structured_outputs": {"json": {}},
    "guided_json": {},
    "truncate_prompt_tokens": 5,
    "echo": True,
}
UNSUPPORTED_IN_TEXT = {"suffix": "x", "best_of": 3, "use_beam_search": True, "kv_transfer_params": {"a": 1}}


@pytest.mark.parametrize("name", UNSUPPORTED_IN_CHAT)
def test_unsupported_chat_field_is_refused_by_name(server, name):
    assert error_of(server.post(CHAT, chat(**{name: UNSUPPORTED_IN_CHAT[name]})))["param"] == name


@pytest.mark.parametrize("name", UNSUPPORTED_IN_TEXT)
def test_unsupported_text_field_is_refused_by_name(server, name):
    assert error_of(server.post(TEXT, text(**{name: UNSUPPORTED_IN_TEXT[name]})))["param"] == name


def test_media_have_the_code_of_what_is_not_supported(server):
    for kind in ("image_url", "input_audio", "video_url", "video", "file"):
        error = error_of(server.post(CHAT, chat(messages=part(type=kind, **{kind: {"url": "data:,"}}))))
        assert error["code"] == "unsupported_parameter"
        assert error["message"].startswith(f"{kind} is not supported: this model reads text")


def test_an_assistant_may_have_said_nothing(server):
    said = [*HI, {"role": "assistant", "content": None}, {"role": "assistant"}, *HI]
    assert server.post(CHAT, chat(messages=said)).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_refused_by_its_coding(server, coding):
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    body = gzip.compress(json.dumps(chat()).encode())
    response = server.http.post(server.url + CHAT, content=body, headers=headers)
    assert coding in error_of(response, 415)["message"]
    assert response.headers["accept-encoding"] == "identity"


def test_the_identity_is_no_coding(server):
    assert server.http.post(server.url + CHAT, json=chat(), headers={"Content-Encoding": "Identity"}).status_code == 200


NO_JSON = [
    b"", b"{", b"nonsense", b'{"a": 1}{', b"{}\x00", b"'a'", b'{"a": 1,}',
    b"\xff\xfe", b'{"model": "\xff"}',
    b'{"model": "\xed\xa0\x80"}', b"\xef\xbb\xbf{}", '{"prompt": "a"}'.encode("utf-16"),
    b'{"model": "\\ud800"}', b'{"model": "\\udc00\\ud800"}', b'{"\\ud800": 1}', b'{"prompt": "\\ud800"}',
    b"[" * 10_000, b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", b'{"x": ' * 10_000 + b"1" + b"}" * 10_000,
    b'{"messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", b'{"seed": ' + b"9" * 10_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("raw", NO_JSON, ids=range(len(NO_JSON)))
@pytest.mark.parametrize("path", [CHAT, TEXT, "/invocations", "/tokenize", "/detokenize"])
def test_what_is_no_json(server, path, raw):
    error = error_of(server.http.post(server.url + path, content=raw))
    assert re.search("not valid JSON|an object|JSON object", error["message"])


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e400", b"-1e400"])
def test_numbers_that_are_none(server, number):
    raw = b'{"model": "fake-model", "prompt": "a", "temperature": %b}' % number
    error = error_of(server.http.post(server.url + TEXT, content=raw))
    assert (error["param"], "between 0 and 2." in error["message"]) == ("temperature", True)


NO_NUMBERS = {
    "logit_bias": b'{"5": NaN}', "prompt": b"[1e400]", "stop_token_ids": b"[NaN]", "max_tokens": b"1e400", "n": b"1.5",
    "priority": b"Infinity", "min_p": b"1e999", "seed": b"-1e400",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_numbers_that_are_none_in_every_place(server, name):
    fields = {"prompt": b'"a"', name: NO_NUMBERS[name]}
    raw = b"{%b}" % b", ".join(b'"%b": %b' % (key.encode(), value) for key, value in fields.items())
    assert error_of(server.http.post(server.url + TEXT, content=raw))["param"].startswith(name)


@pytest.mark.parametrize("name", ["seed", "n", "max_tokens", "temperature", "top_p", "logit_bias", "priority", "top_k"])
def test_an_integer_of_thousands_of_digits(server, name):
    number = b"9" * 4_200
    value = b'{"5": %b}' % number if name == "logit_bias" else number
    response = server.http.post(server.url + TEXT, content=b'{"prompt": "a", "%b": %b}' % (name.encode(), value))
    assert response.status_code == (200 if name == "logit_bias" else 400)  # a bias is clamped, as OpenAI's are


def test_of_two_equal_keys_the_last_one_counts(server):
    response = server.http.post(
        server.url + TEXT, content=b'{"prompt": 5, "prompt": "a", "max_tokens": 3, "max_tokens": 2}'
    )
    assert response.json()["usage"]["completion_tokens"] == 2


HUGE_BODIES = {
    "wrong elements": b'{"prompt": "a", "stop": [' + b"1," * 3_000_000 + b"1]}",
    "wrong messages": b'{"messages": [' + b"{}," * 2_000_000 + b"{}]}",
    "wrong content": b'{"messages": [{"role": "user", "content": [' + b"1," * 3_000_000 + b"1]}]}",
    "unknown fields": b"{" + b",".join(b'"%d":1' % number for number in range(500_000)) + b"}",
    "empty prompts": b'{"prompt": [' + b"[]," * 2_000_000 + b"[]]}",
    "many prompts": b'{"prompt": [' + b'"",' * 2_000_000 + b'""]}',
    "many tokens": b'{"prompt": [' + b"5," * 3_000_000 + b"5]}",
    "many stops": b'{"prompt": "a", "stop": [' + b'"a",' * 1_000_000 + b'"a"]}',
    "many bad words": b'{"prompt": "a", "bad_words": [' + b'"a",' * 1_000_000 + b'"a"]}',
}


@pytest.mark.parametrize("name", HUGE_BODIES)
def test_no_body_keeps_the_server_from_others_for_long(server, name):
    """pydantic describes each wrong element: a body of 6 MB took it more than a minute, of the one thread there is."""
    began = time.process_time()
    path = CHAT if "messages" in name or "content" in name else TEXT
    error_of(server.http.post(server.url + path, content=HUGE_BODIES[name], timeout=60))
    assert time.process_time() - began < 10


def test_unknown_model_lists_what_is_served(server):
    for path, body in ((CHAT, chat(model="gpt")), (TEXT, text(model="gpt")), ("/tokenize", text(model="gpt"))):
        error = error_of(server.post(path, body), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "'fake-model', 'alias'" in error["message"]


def test_the_openai_client_raises_its_own_errors(server):
    with pytest.raises(openai.NotFoundError):
        server.client().chat.completions.create(model="gpt", messages=HI)
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().completions.create(model="fake-model", prompt=LONG)
    assert caught.value.code == "context_length_exceeded"


def test_unknown_routes_and_methods(server):
    assert "/v1/chat/completions" in error_of(server.get("/v1/nothing"), 404)["message"]
    response = server.get(CHAT)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"


def test_the_engines_refusal_reaches_the_client(start_server):
    server = start_server(say="abc", fail_request_on=7)
    for stream in (False, True):
        error = error_of(server.post(TEXT, text(prompt=[5, 7], stream=stream)))
        assert (error["param"], "refuses" in error["message"]) == ("prompt", True)
    assert server.post(TEXT, text(prompt=[5])).status_code == 200


NUMBERS = st.one_of(
    st.integers(-3, 300), st.integers(), st.floats(), st.sampled_from([2**31, 2**63, 2**64, -(2**70), 1e308])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=8) | st.sampled_from(["5", "type"]), inner, max_size=4),
    ),
    max_leaves=8,
)
BODIES = {
    CHAT: (ChatCompletionRequest, {"messages": HI}),
    TEXT: (CompletionRequest, {"prompt": "Hi"}),
    "/tokenize": (TokenizeTextRequest, {"prompt": "Hi"}),
    "/detokenize": (DetokenizeRequest, {"tokens": [5]}),
    "/invocations": (GenerateRequest, {"inputs": "Hi"}),
}
SESSION = httpx.Client(timeout=20)
FIELDS = [(path, name) for path, (model, _) in BODIES.items() for name in model.model_fields] + [
    ("/invocations", f"parameters.{name}") for name in GenerateParameters.model_fields
]


@settings(max_examples=1_000, deadline=None, database=None)
@given(place=st.sampled_from(FIELDS), value=VALUES)
def test_any_value_of_any_field_is_taken_or_is_an_error_of_the_client(server, place, value):
    path, name = place
    outer, _, inner = name.partition(".")
    body = {**BODIES[path][1], outer: {inner: value} if inner else value}
    response = SESSION.post(server.url + path, content=json.dumps(body).encode())
    assert response.status_code < 500
    if response.status_code != 200:
        assert error_of(response, response.status_code)["message"]
