"""/invocations: Hugging Face's body, and OpenAI's two."""

import json

import pytest

SAID = "Hello wörld 🙂!"


def ask(server, inputs, stream=False, **parameters):
    return server.post("/invocations", {"inputs": inputs, "parameters": parameters, "stream": stream})


def error_of(response):
    assert response.status_code == 400, response.text
    return response.json()["error"]


def test_inputs_and_parameters(server):
    response = server.post("/invocations", {"inputs": "Once", "parameters": {"max_new_tokens": 100}})
    assert response.json() == [{"generated_text": SAID}]
    assert server.post("/invocations", {"inputs": "Once"}).json() == [{"generated_text": SAID}]


def test_openais_bodies(server):
    messages = [{"role": "user", "content": "Hi"}]
    assert server.post("/invocations", {"messages": messages}).json()["object"] == "chat.completion"
    assert server.post("/invocations", {"prompt": "Hi"}).json()["object"] == "text_completion"
    stream = server.post("/invocations", {"messages": messages, "stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.endswith("data: [DONE]\n\n")


def test_several_inputs_have_a_list_each(server):
    answer = ask(server, ["a", "b"], num_return_sequences=2, do_sample=True).json()
    assert answer == [[{"generated_text": SAID}] * 2] * 2


def test_the_whole_text_is_returned_when_asked_for(server):
    assert ask(server, "Once ", return_full_text=True).json() == [{"generated_text": f"Once {SAID}"}]


def test_lengths_and_stops(server):
    assert ask(server, "a", max_new_tokens=5).json() == [{"generated_text": "Hello"}]
    for name in ("stop", "stop_sequences"):
        assert ask(server, "a", **{name: ["wör"]}).json() == [{"generated_text": "Hello wör"}]


@pytest.mark.parametrize(
    ("parameters", "reason", "count"),
    [({"max_new_tokens": 3}, "length", 3), ({}, "eos_token", 19), ({"stop": ["wör"]}, "stop_sequence", 10)],
)
def test_details(server, parameters, reason, count):
    [answer] = ask(server, "a", details=True, seed=7, **parameters).json()
    details = answer["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == (reason, count, 7)
    assert details["tokens"][0] == {"id": details["tokens"][0]["id"], "text": "H", "logprob": -0.5, "special": False}
    assert len(details["tokens"]) == count


@pytest.mark.parametrize("parameters", [{}, {"max_new_tokens": 4}, {"stop": ["wör"]}])
def test_a_stream_joins_to_the_whole_text(server, parameters):
    [whole] = ask(server, "a", details=True, **parameters).json()
    response = ask(server, "a", stream=True, details=True, **parameters)
    events = [json.loads(event.removeprefix("data:")) for event in response.text.split("\n\n") if event]
    assert "".join(event["token"]["text"] for event in events) == whole["generated_text"]
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert [event["generated_text"] for event in events[:-1]] == [None] * (len(events) - 1)
    last = events[-1]
    assert last["generated_text"] == whole["generated_text"]
    assert last["details"]["finish_reason"] == whole["details"]["finish_reason"]
    assert last["details"]["generated_tokens"] == whole["details"]["generated_tokens"]
    assert last["details"]["input_length"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("typical_p", 0.5), ("best_of", 2), ("truncate", 10), ("watermark", True), ("decoder_input_details", True),
        ("top_n_tokens", 3), ("grammar", {}), ("adapter_id", "a"), ("max_length", 20), ("max_time", 1.0),
        ("num_beams", 4), ("no_repeat_ngram_size", 2),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(server, name, value):
    error = error_of(ask(server, "a", **{name: value}))
    assert (error["param"], error["code"]) == (f"parameters.{name}", "unsupported_parameter")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"x": 1}, "inputs"),
        ({"inputs": 5}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": ""}, "inputs"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 0}}, "parameters.max_new_tokens"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 1000}}, "max_new_tokens"),
        ({"inputs": "a", "parameters": {"temperature": -1}}, "temperature"),
        ({"inputs": "a", "parameters": {"tempreture": 1}}, "parameters.tempreture"),
        ({"inputs": ["a", "b"], "stream": True}, "stream"),
    ],
)
def test_bad_bodies_are_named(server, body, param):
    assert error_of(server.post("/invocations", body))["param"] == param


def test_harmless_values_are_taken(server):
    harmless = {"best_of": 1, "typical_p": 1.0, "watermark": False, "do_sample": False, "temperature": 0.7}
    assert ask(server, "a", **harmless).status_code == 200
