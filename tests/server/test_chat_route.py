"""/v1/chat/completions through the openai client."""

import openai
import pytest

SAID = "Hello wörld 🙂!"
MESSAGES = [{"role": "user", "content": "Hi"}]


def ask(server, **fields):
    return server.client().chat.completions.create(**{"model": "fake-model", "messages": MESSAGES, **fields})


def test_whole_answer(server):
    answer = ask(server)
    [choice] = answer.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (SAID, "assistant", "stop")
    assert (answer.object, answer.model) == ("chat.completion", "fake-model")
    assert answer.id.startswith("chatcmpl-")


def test_usage_counts_the_template_and_the_cache(server):
    prompt = "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\n"
    num_tokens = server.post("/tokenize", {"prompt": prompt}).json()["count"]
    usage = ask(server).usage
    assert usage.prompt_tokens == num_tokens
    assert usage.completion_tokens == len(SAID.encode()) + 1  # the end token counts
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == num_tokens // 2


def test_a_served_alias_is_answered_under_its_own_name(server):
    assert ask(server, model="alias").model == "alias"


def test_stream_joins_to_the_whole_answer(server):
    chunks = list(ask(server, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert [chunk.choices[0].finish_reason for chunk in chunks].index("stop") == len(chunks) - 1
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.object == "chat.completion.chunk" and chunk.usage is None for chunk in chunks)


async def test_async_client_streams(server):
    async with server.async_client() as client:
        stream = await client.chat.completions.create(model="fake-model", messages=MESSAGES, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SAID


def test_stream_usage_comes_last_when_asked_for(server):
    *chunks, last = ask(server, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage == ask(server).usage
    assert all(chunk.usage is None for chunk in chunks)


def test_continuous_usage_counts_up(server):
    chunks = list(ask(server, stream=True, extra_body={"stream_options": {"continuous_usage_stats": True}}))
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == len(SAID.encode()) + 1


def test_several_choices(server):
    answer = ask(server, n=3)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, SAID), (1, SAID), (2, SAID)]


def test_several_choices_stream_side_by_side(server):
    texts = {0: "", 1: ""}
    roles = []
    for chunk in ask(server, n=2, stream=True):
        [choice] = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        roles += [choice.index] if choice.delta.role else []
    assert texts == {0: SAID, 1: SAID}
    assert roles == [0, 1]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_have_openai_shape(server, stream):
    answer = ask(server, logprobs=True, top_logprobs=2, max_tokens=3, stream=stream)
    choices = [chunk.choices[0] for chunk in answer if chunk.choices[0].logprobs] if stream else answer.choices
    content = [entry for choice in choices for entry in choice.logprobs.content]
    assert [entry.token for entry in content] == ["H", "e", "l"]
    assert [entry.bytes for entry in content] == [[ord("H")], [ord("e")], [ord("l")]]
    assert [[top.token for top in entry.top_logprobs] for entry in content] == [["H", "I"], ["e", "f"], ["l", "m"]]
    assert content[0].logprob == -0.5


@pytest.mark.parametrize("stop", [None, ["wör"], [" 🙂"]])
@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_come_for_every_token_however_it_ends(server, stream, stop):
    answer = ask(server, logprobs=True, stop=stop, stream=stream)
    choices = [chunk.choices[0] for chunk in answer if chunk.choices[0].logprobs] if stream else answer.choices
    octets = bytes(octet for choice in choices for entry in choice.logprobs.content for octet in entry.bytes)
    assert octets.decode(errors="replace").startswith(SAID[: SAID.index(stop[0])] if stop else SAID)


def test_logprobs_without_alternatives(server):
    [entry] = ask(server, logprobs=True, max_tokens=1).choices[0].logprobs.content
    assert (entry.token, entry.top_logprobs) == ("H", [])


@pytest.mark.parametrize("stream", [False, True])
def test_stop_string_across_tokens_ends_the_text_before_it(start_server, stream):
    server = start_server(say="one two three four " * 8, step_seconds=0.005, max_model_len=512)
    answer = ask(server, stop=["two th"], stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    text = "".join(choice.delta.content or "" for choice in choices) if stream else choices[0].message.content
    assert text == "one "
    assert choices[-1].finish_reason == "stop"
    assert choices[-1].stop_reason == "two th"
    server.wait_until(lambda: server.num_running == 0)


def test_the_stop_string_is_kept_when_asked_for(server):
    answer = ask(server, stop="wör", extra_body={"include_stop_str_in_output": True})
    assert answer.choices[0].message.content == "Hello wör"


def test_max_tokens_ends_with_length(server):
    for name in ("max_tokens", "max_completion_tokens"):
        [choice] = ask(server, **{name: 5}).choices
        assert (choice.message.content, choice.finish_reason) == ("Hello", "length")


def test_token_ids_are_returned_when_asked_for(server):
    prompt = "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\n"
    answer = ask(server, max_tokens=2, extra_body={"return_token_ids": True})
    assert answer.prompt_token_ids == server.post("/tokenize", {"prompt": prompt}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": answer.choices[0].token_ids}).json() == {"prompt": "He"}
    chunks = list(ask(server, max_tokens=2, stream=True, extra_body={"return_token_ids": True}))
    assert chunks[0].choices[0].prompt_token_ids == answer.prompt_token_ids
    assert [token for chunk in chunks for token in getattr(chunk.choices[0], "token_ids", [])] == answer.choices[
        0
    ].token_ids


def test_prompt_logprobs(server):
    answer = ask(server, max_tokens=1, extra_body={"prompt_logprobs": 1})
    assert answer.prompt_logprobs[0] is None
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens


def test_content_parts_and_echoed_answers_are_taken(start_server):
    server = start_server(echo_prompt=True)
    first = ask(server, max_tokens=3).choices[0].message
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {**first.model_dump(), "content": "c"},
        {"role": "user", "content": "d"},
    ]
    text = ask(server, messages=messages, extra_body={"skip_special_tokens": False}).choices[0].message.content
    assert text.startswith("<|im_start|>system\na\nb<|im_end|><|im_start|>assistant\nc<|im_end|>")


def test_continuing_the_last_message(start_server):
    server = start_server(echo_prompt=True)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Sure, "}]
    extra = {"continue_final_message": True, "add_generation_prompt": False, "skip_special_tokens": False}
    assert ask(server, messages=messages, extra_body=extra).choices[0].message.content.endswith("Sure, ")


@pytest.mark.parametrize(
    "harmless",
    [
        {"user": "me"},
        {"metadata": {"a": "b"}},
        {"store": False},
        {"service_tier": "auto"},
        {"parallel_tool_calls": True},
        {"response_format": {"type": "text"}},
        {"tools": []},
        {"tool_choice": "none"},
        {"modalities": ["text"]},
        {"safety_identifier": "x"},
        {"prompt_cache_key": "x"},
        {"logit_bias": {"5": 1}},
        {"seed": 7, "presence_penalty": 0.5, "frequency_penalty": 0.5, "temperature": 0.3, "top_p": 0.9},
    ],
    ids="-".join,
)
def test_fields_that_are_taken(server, harmless):
    assert ask(server, **harmless).choices[0].message.content == SAID


def test_vllm_extras_are_taken(server):
    extras = {
        "min_p": 0.1, "top_k": 5, "repetition_penalty": 1.1, "stop_token_ids": [7], "min_tokens": 1,
        "ignore_eos": False, "skip_special_tokens": True, "bad_words": ["bad"], "allowed_token_ids": [5, 6],
        "priority": 1, "chat_template_kwargs": {"enable_thinking": False}, "request_id": "mine",
    }  # fmt: skip
    assert ask(server, extra_body=extras).id == "chatcmpl-mine"


def test_the_models_own_defaults_hold_for_fields_left_out(start_server):
    server = start_server(say="x" * 9, sampling_defaults={"temperature": 0.0, "max_tokens": 4})
    assert ask(server).choices[0].message.content == "xxxx"
    assert len(ask(server, n=2, temperature=1).choices) == 2
    with pytest.raises(openai.BadRequestError, match=r"n is 2 and temperature is 0\.0"):
        ask(server, n=2)
