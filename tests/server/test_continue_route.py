"""/v1/continue, and the token ids in streams that it stands on."""

import itertools
import json

import httpx
import pytest
from running_server import RunningServer

from headrace.server.protocol.continuation import ContinueChatRequest
from headrace.testing.fake_engine import Script

SAID = "Hello wörld 🙂! ST STO ✂"
CHAT = {"messages": [{"role": "user", "content": "Hi 🙂"}]}
COMPLETION = {"prompt": "Once ", "max_tokens": 60}
ROUTES = {"chat.completions": CHAT, "completions": COMPLETION}


class Told:
    """A streamed answer put together: texts and token ids chunk by chunk, prompt, end and counts."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.text
        events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
        assert events.pop() == "[DONE]"
        chunks = [json.loads(event) for event in events]
        self.usage = chunks.pop()["usage"]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        self.prompt = next(choice["prompt_token_ids"] for choice in choices if "prompt_token_ids" in choice)
        told = [choice for choice in choices if "token_ids" in choice]
        self.lengths = list(itertools.accumulate(len(choice["token_ids"]) for choice in told))
        self.parts = [
            (choice.get("text", choice.get("delta", {}).get("content", "")), choice["token_ids"]) for choice in told
        ]
        self.logprobs = [choice["logprobs"] for choice in told]
        self.end = (choices[-1]["finish_reason"], choices[-1]["stop_reason"])

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.parts)

    @property
    def token_ids(self) -> list[int]:
        return [token for _, ids in self.parts for token in ids]


def streamed(server, path, body):
    fields = {"stream": True, "return_token_ids": True, "temperature": 0, "stream_options": {"include_usage": True}}
    return Told(server.post(path, {**fields, **body}))


def original(server, endpoint, **fields):
    return streamed(server, f"/v1/{endpoint.replace('.', '/')}", {**ROUTES[endpoint], **fields})


def continuation(endpoint, prompt, output, **fields):
    limit = {name: value for name, value in ROUTES[endpoint].items() if name == "max_tokens"}
    return {"endpoint": endpoint, "prompt_token_ids": prompt, "output_token_ids": output, **limit, **fields}


@pytest.fixture(scope="module")
def talker(model_text):
    tokens = model_text.tokenizer.encode(SAID, add_special_tokens=False)
    script = Script(token_ids=tokens, vocab_size=model_text.tokenizer.vocab_size, step_seconds=0.001)
    running = RunningServer(script, model_text)
    yield running.wait_ready()
    running.stop()


@pytest.mark.parametrize("endpoint", ROUTES)
@pytest.mark.parametrize("fields", [{}, {"stop": ["STOP", "O ✂"]}, {"stop": "\n"}, {"max_tokens": 20}], ids=str)
def test_each_chunk_carries_its_token_ids(talker, model_text, endpoint, fields):
    """Also those that bring no text: half characters, the beginnings of stop strings, the end."""
    told = original(talker, endpoint, **fields)
    tokens = [*model_text.tokenizer.encode(SAID, add_special_tokens=False), 2]
    assert told.token_ids == tokens[: len(told.token_ids)]
    assert len(told.token_ids) == told.usage["completion_tokens"]
    assert len(told.prompt) == told.usage["prompt_tokens"]
    assert told.text in SAID
    for position in range(len(told.parts)):  # the text of a chunk is never ahead of its tokens
        so_far = "".join(text for text, _ in told.parts[: position + 1])
        ids = [token for _, part in told.parts[: position + 1] for token in part]
        assert model_text.tokenizer.decode(ids).startswith(so_far)


@pytest.mark.parametrize("endpoint", ROUTES)
@pytest.mark.parametrize(
    "fields", [{}, {"stop": ["STOP", "O ✂"]}, {"stop": ["!!", "🙂!"], "include_stop_str_in_output": True}], ids=str
)
def test_the_joined_stream_is_the_unbroken_one(talker, endpoint, fields):
    """Cut after every chunk: text, token ids, end and counts are those of the stream that was not cut."""
    whole = original(talker, endpoint, **fields)
    assert len(whole.parts) > 10
    for number, cut in enumerate(whole.lengths[:-1], start=1):
        before = "".join(text for text, _ in whole.parts[:number])
        asked = continuation(endpoint, whole.prompt, whole.token_ids[:cut], **fields)
        rest = streamed(talker, "/v1/continue", asked)
        assert before + rest.text == whole.text
        assert rest.token_ids == whole.token_ids[cut:]
        assert (rest.prompt, rest.end) == (whole.prompt, whole.end)
        counts = ("prompt_tokens", "completion_tokens", "total_tokens")
        assert [rest.usage[name] for name in counts] == [whole.usage[name] for name in counts]


@pytest.mark.parametrize("endpoint", ROUTES)
@pytest.mark.parametrize("fields", [{}, {"stop": "O ✂"}], ids=str)
def test_a_stream_of_nothing_but_text_goes_on_too(talker, endpoint, fields):
    """Without `return_token_ids` a stream takes a shorter way; the cut may be anywhere in it."""
    whole = original(talker, endpoint, **fields)
    for cut in range(1, len(whole.token_ids), 4):
        body = continuation(endpoint, whole.prompt, whole.token_ids[:cut], **fields)
        stream = talker.post("/v1/continue", {**body, "stream": True, "temperature": 0}).text
        events = [json.loads(line[6:])["choices"][0] for line in stream.splitlines() if line.startswith("data: {")]
        rest = "".join(event.get("text", event.get("delta", {}).get("content", "")) for event in events)
        told = streamed(talker, "/v1/continue", body)
        assert rest == told.text and whole.text.endswith(rest)
        assert events[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("endpoint", ROUTES)
def test_a_whole_answer_holds_what_follows(talker, endpoint):
    whole = original(talker, endpoint)
    cut = whole.lengths[8]
    body = continuation(endpoint, whole.prompt, whole.token_ids[:cut], temperature=0, return_token_ids=True)
    answer = talker.post("/v1/continue", {**body, "request_id": "mine"}).json()
    [choice] = answer["choices"]
    text = choice["text"] if endpoint == "completions" else choice["message"]["content"]
    assert "".join(part for part, _ in whole.parts[:9]) + text == SAID
    assert choice["token_ids"] == whole.token_ids[cut:]
    assert (answer["id"].split("-")[1], answer["usage"]["completion_tokens"]) == ("mine", len(whole.token_ids))


def test_logprobs_go_on_at_their_place_in_the_text(talker):
    whole = original(talker, "completions", logprobs=0)
    cut = whole.lengths[8]
    rest = streamed(
        talker, "/v1/continue", continuation("completions", whole.prompt, whole.token_ids[:cut], logprobs=0)
    )
    columns = ("text_offset", "tokens", "token_logprobs", "top_logprobs")
    for name in columns:
        after = [each for part in whole.logprobs[9:] for each in part[name]]
        assert [each for part in rest.logprobs for each in part[name]] == after


def test_what_was_echoed_is_not_echoed_again_and_counts_for_the_offsets(talker):
    asked = {**COMPLETION, "temperature": 0, "echo": True, "logprobs": 0, "return_token_ids": True}
    [whole] = talker.post("/v1/completions", asked).json()["choices"]
    prompt, output = whole["prompt_token_ids"], whole["token_ids"]
    body = continuation("completions", prompt, output[:8], temperature=0, logprobs=0, echo=True)
    [rest] = talker.post("/v1/continue", body).json()["choices"]
    for name in ("text_offset", "tokens", "token_logprobs", "top_logprobs"):
        assert rest["logprobs"][name] == whole["logprobs"][name][len(prompt) + 8 :]
    assert whole["text"].endswith(rest["text"]) and not rest["text"].startswith("Once")


def test_the_limit_counts_what_was_told(talker):
    whole = original(talker, "completions", max_tokens=20)
    body = continuation("completions", whole.prompt, whole.token_ids[:17], max_tokens=20)
    assert streamed(talker, "/v1/continue", body).end == ("length", None)
    assert len(streamed(talker, "/v1/continue", body).token_ids) == 3


@pytest.mark.parametrize("endpoint", ROUTES)
@pytest.mark.parametrize(
    ("fields", "param", "what"),
    [
        ({"temperature": 1}, "seed", "seed is not set"),
        ({"temperature": 1, "seed": -1}, "seed", "seed is not set"),
        ({"n": 2, "temperature": 1, "seed": 3}, "n", "n is 2"),
        ({"output_token_ids": []}, "output_token_ids", "at least 1 item"),
        ({"output_token_ids": [5, 99999]}, "output_token_ids", "token id 99999"),
        ({"output_token_ids": [5, -1]}, "output_token_ids", "token id -1"),
        ({"output_token_ids": ["a"]}, "output_token_ids.0", "must be an integer"),
        ({"output_token_ids": [5] * 9, "max_tokens": 9}, "output_token_ids", "at most 9"),
        ({"output_token_ids": [5, 2]}, "output_token_ids", "token 2"),
        ({"output_token_ids": [5, 6, 7], "stop_token_ids": [6]}, "output_token_ids", "token 6"),
        ({"output_token_ids": [35, 35, 36], "stop": ["a", "AB"]}, "output_token_ids", "stop string"),
        ({"prompt_token_ids": []}, "prompt_token_ids", "at least 1 item"),
        ({"prompt_token_ids": [5] * 300}, "prompt_token_ids", "300 tokens"),
        ({"prompt_token_ids": [99999]}, "prompt_token_ids", "token id 99999"),
        ({"index": -1}, "index", "greater than or equal to 0"),
        ({"prompt_logprobs": 1}, "prompt_logprobs", "prompt_logprobs is"),
        ({"endpoint": "embeddings"}, "endpoint", "'completions'"),
        ({"endpoint": 5}, "endpoint", "endpoint"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages", "messages"),
        ({"messages": []}, "messages", "messages"),
        ({"prompt": None}, "prompt", "prompt"),
        ({"prompt": "x"}, "prompt", "prompt"),
        ({"tools": [{"type": "function"}]}, "tools", "tools"),
        ({"position": 7}, "position", "Unrecognized"),
        ({"model": "other"}, "model", "does not exist"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_cannot_be_continued_is_refused_by_name(talker, model_text, endpoint, fields, param, what):
    assert model_text.tokenizer.decode([35, 36]) == "AB"
    for stream in (False, True):
        body = {**continuation(endpoint, [5, 6], [7, 8]), "temperature": 0, "stream": stream, **fields}
        response = talker.post("/v1/continue", body)
        error = response.json()["error"]
        assert response.status_code == (404 if param == "model" else 400)
        assert error["param"] == param and what in error["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"endpoint": null}', b'{"endpoint": "completions"}', b"\xff"])
def test_what_is_no_continuation_is_refused(talker, raw):
    headers = {"Content-Type": "application/json"}
    response = talker.http.post(f"{talker.url}/v1/continue", content=raw, headers=headers)
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("seed", "index", "expected"),
    [(None, 3, None), (-1, 0, None), (5, 0, 5), (5, 2, 7), (-2, 1, 2**64 - 1), (2**63 - 1, 1, 2**63)],
)
def test_the_seed_is_the_choice_s(seed, index, expected):
    """-1 asks for a random seed only where the client wrote it; two seeds with the same low 64 bits are one."""
    asked = ContinueChatRequest.of(continuation("chat.completions", [1], [2], seed=seed, index=index))
    assert asked.choice_seed(asked.seed) == expected
