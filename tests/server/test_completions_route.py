"""/v1/completions through the openai client."""

import pytest

SAID = "Hello wörld 🙂!"


def ask(server, prompt="Once", **fields):
    fields = {"max_tokens": 50, **fields}
    return server.client().completions.create(model="fake-model", prompt=prompt, **fields)


def tokens_of(server, text):
    return server.post("/tokenize", {"prompt": text}).json()["tokens"]


def test_whole_answer(server):
    answer = ask(server)
    assert (answer.object, answer.choices[0].text, answer.choices[0].finish_reason) == ("text_completion", SAID, "stop")
    assert answer.id.startswith("cmpl-")
    assert answer.usage.prompt_tokens == 4


def test_sixteen_tokens_by_default(start_server):
    server = start_server(say="x" * 40)
    assert server.client().completions.create(model="fake-model", prompt="a").choices[0].text == "x" * 16


def test_stream_joins_to_the_whole_answer(server):
    *chunks, last = ask(server, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in chunks) == SAID
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage == ask(server).usage


@pytest.mark.parametrize("stream", [False, True])
def test_every_form_of_prompt(start_server, stream):
    server = start_server(echo_prompt=True)
    ab, cd = tokens_of(server, "ab"), tokens_of(server, "cd")
    for prompt, expected in (("ab", ["ab"]), (["ab", "cd"], ["ab", "cd"]), (ab, ["ab"]), ([ab, cd], ["ab", "cd"])):
        answer = ask(server, prompt, stream=stream)
        texts = [""] * len(expected)
        for choice in [choice for part in answer for choice in part.choices] if stream else answer.choices:
            texts[choice.index] += choice.text
        assert texts == expected


def test_choices_are_numbered_prompt_by_prompt(start_server):
    server = start_server(echo_prompt=True)
    answer = ask(server, ["ab", "cd"], n=2)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "ab"), (1, "ab"), (2, "cd"), (3, "cd")]
    assert answer.usage.prompt_tokens == 4


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_first(server, stream):
    for prompt in ("Once ", tokens_of(server, "Once ")):
        answer = ask(server, prompt, echo=True, stream=stream)
        choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
        assert "".join(choice.text for choice in choices) == f"Once {SAID}"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_have_openai_shape(server, stream):
    answer = ask(server, max_tokens=3, logprobs=2, stream=stream)
    parts = [chunk.choices[0].logprobs for chunk in answer] if stream else [answer.choices[0].logprobs]
    assert [token for part in parts for token in part.tokens] == ["H", "e", "l"]
    assert [offset for part in parts for offset in part.text_offset] == [0, 1, 2]
    assert [number for part in parts for number in part.token_logprobs] == [-0.5] * 3
    assert [list(top) for part in parts for top in part.top_logprobs] == [["H", "I"], ["e", "f"], ["l", "m"]]


def test_echo_with_logprobs_scores_the_prompt(server):
    answer = ask(server, "Hi", echo=True, logprobs=1, max_tokens=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs.tokens == ["H", "i", "H"]
    assert logprobs.token_logprobs == [None, -0.5, -0.5]
    assert logprobs.top_logprobs[0] is None
    assert logprobs.text_offset == [0, 1, 2]


@pytest.mark.parametrize("stream", [False, True])
def test_echo_with_logprobs_for_several_choices_of_several_prompts(server, stream):
    answer = ask(server, ["Hi", "Yo"], echo=True, logprobs=1, max_tokens=1, n=2, stream=stream)
    tokens = {number: [] for number in range(4)}
    for choice in [choice for part in answer for choice in part.choices] if stream else answer.choices:
        tokens[choice.index] += choice.logprobs.tokens
    assert list(tokens.values()) == [["H", "i", "H"]] * 2 + [["Y", "o", "H"]] * 2


def test_echo_alone_scores_without_generating(server):
    answer = ask(server, "Hi", echo=True, logprobs=1, max_tokens=0)
    assert answer.choices[0].text == "Hi"
    assert answer.choices[0].logprobs.tokens == ["H", "i"]
    assert answer.usage.completion_tokens == 0


def test_stop_token_as_text_in_logprobs_by_id(server):
    answer = ask(server, max_tokens=1, logprobs=0, extra_body={"return_tokens_as_token_ids": True})
    assert answer.choices[0].logprobs.tokens[0].startswith("token_id:")


def test_token_ids_are_returned_when_asked_for(server):
    answer = ask(server, "Hi", max_tokens=2, extra_body={"return_token_ids": True})
    assert answer.choices[0].prompt_token_ids == tokens_of(server, "Hi")
    assert answer.choices[0].token_ids == tokens_of(server, "He")


def test_a_long_text_is_tokenized_like_a_short_one(start_server):
    server = start_server(echo_prompt=True, max_model_len=5_000)
    text = "lorem ipsum " * 100
    assert ask(server, text, max_tokens=2_000).choices[0].text == text
