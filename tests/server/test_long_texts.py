"""Long texts and long lists: worked on once and off the event loop, in a bounded queue, for clients that are there."""

import threading

import pytest

from headrace.core.errors import HeadraceError
from headrace.server import generation, text_threads
from headrace.server.protocol.structure import MAX_PARTS, MAX_VALUES, check_structure
from headrace.server.text_threads import TextThreads
from headrace.text.tokenizer import Tokenizer

from test_hostile_clients import request  # isort: skip

LONG = "x" * 600
WORDS = [f"{number}{'y' * 20}" for number in range(20)]


class Watched:
    """A function that remembers the threads it was called in, and may be held up."""

    def __init__(self, function):
        self.threads = []
        self.may_go = threading.Event()
        self.may_go.set()
        self._function = function

    def as_function(self):
        """A class binds a function to its instances, and nothing else."""

        def function(*args, **kwargs):
            return self._call(*args, **kwargs)

        return function

    def _call(self, *args, **kwargs):
        self.threads.append(threading.current_thread())
        assert self.may_go.wait(20)
        return self._function(*args, **kwargs)


@pytest.fixture
def watch(monkeypatch):
    watched = []

    def start(owner, name):
        each = Watched(getattr(owner, name))
        watched.append(each)
        monkeypatch.setattr(owner, name, each.as_function())
        return each

    yield start
    for each in watched:
        each.may_go.set()


def send(server, body):
    connection = server.raw()
    connection.sendall(request(body, "/tokenize"))
    return connection


def test_the_text_of_a_client_that_left_is_not_begun(start_server, watch):
    server, encode, run = start_server(say="x"), watch(Tokenizer, "encode"), watch(TextThreads, "run")
    encode.may_go.clear()
    with send(server, {"prompt": LONG}):
        server.wait_until(lambda: encode.threads)
        for _ in range(3):
            send(server, {"prompt": LONG}).close()
        server.wait_until(lambda: len(run.threads) == 4)
        server.wait_until(lambda: server.client_state.metrics.series.number("headrace:http_open_requests").value == 1)
        encode.may_go.set()
        assert server.post("/tokenize", {"prompt": LONG}).json()["count"] == 600
    assert len(encode.threads) == 2


def test_waiting_texts_are_bounded_and_prompts_do_not_wait_for_them(start_server, watch, monkeypatch):
    monkeypatch.setattr(text_threads, "MAX_WAITING_CHARACTERS", 1_000)
    server, encode = start_server(say="x", max_model_len=2_000), watch(Tokenizer, "encode")
    encode.may_go.clear()
    with send(server, {"prompt": "x" * 5_000}):  # alone it may be longer
        server.wait_until(lambda: encode.threads)
        for path, body in (("/tokenize", {"prompt": LONG}), ("/detokenize", {"tokens": [5] * 600})):
            refused = server.post(path, body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
        assert "vllm:admission_rejections_total{" in server.get("/metrics").text
        assert 'reason="text_characters"' in server.get("/metrics").text
        assert server.post("/v1/completions", {"prompt": LONG}).status_code == 200
    encode.may_go.set()


@pytest.mark.parametrize(("field", "name"), [("bad_words", "bad_words_token_ids"), ("stop", "StopStrings")])
def test_strings_are_prepared_once_a_request_and_off_the_loop(server, watch, field, name):
    made = watch(generation, name)
    assert server.post("/v1/completions", {"prompt": ["a", "b", "c"], "n": 2, field: WORDS}).status_code == 200
    [thread] = made.threads
    assert thread is not server._thread


def test_many_sequences_are_made_off_the_loop(server, watch):
    made = watch(generation, "RequestStream")
    assert server.post("/v1/completions", {"prompt": "a", "n": 60}).status_code == 200
    assert made.threads and server._thread not in made.threads


def test_many_short_messages_are_put_together_off_the_loop(server, watch):
    template = watch(Tokenizer, "apply_chat_template")
    server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}] * 60})
    [thread] = template.threads
    assert thread is not server._thread


def test_the_texts_of_many_tokens_are_looked_up_off_the_loop(server, watch):
    token_text = watch(Tokenizer, "token_text")
    answer = server.post("/tokenize", {"prompt": LONG, "return_token_strs": True}).json()
    assert answer["token_strs"] == ["x"] * 600
    assert server._thread not in token_text.threads


def test_few_stop_strings_are_taken(server):
    assert server.post("/v1/completions", {"prompt": "a", "stop": ["q"] * 64}).status_code == 200
    for stop in (["q"] * 65, "q" * 5_000):
        response = server.post("/v1/completions", {"prompt": "a", "stop": stop})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "stop")
        assert "At most 64 strings with 4096 characters" in response.json()["error"]["message"]


def test_a_body_has_so_many_values():
    check_structure(b"[" + b"5," * (MAX_VALUES - 1) + b"5]")
    check_structure(b'["' + b"5," * MAX_VALUES + b'"]')
    with pytest.raises(HeadraceError, match=f"{MAX_VALUES + 1} values"):
        check_structure(b"[" + b"5," * MAX_VALUES + b"5]")


def test_a_body_has_so_many_parts():
    check_structure(b"[" + b'"a",' * (MAX_PARTS - 2) + b'"a"]')
    check_structure(b'["' + rb"\"" * 4 * MAX_PARTS + b'"]')  # a text with quotes is one string
    for parts in (b'"a",' * MAX_PARTS, rb'"\\",' * MAX_PARTS, b"{}," * MAX_PARTS, b'"\\"[{:",' + b"[]," * MAX_PARTS):
        with pytest.raises(HeadraceError, match=f"It may have {MAX_PARTS}"):
            check_structure(b"[" + parts + b'"a"]')


@pytest.mark.parametrize("prompt", [[-1], [2**32], [5] * 300, [[5], [999]]], ids=lambda value: str(value)[:20])
def test_an_echo_is_refused_in_the_words_of_any_prompt_before_it_is_decoded(server, watch, prompt):
    decode = watch(Tokenizer, "decode")
    echoed, plain = [server.post("/v1/completions", {"prompt": prompt, "echo": echo}) for echo in (True, False)]
    assert (echoed.status_code, echoed.json()) == (400, plain.json())
    assert echoed.json()["error"]["param"] == "prompt"
    assert not decode.threads


def test_an_echo_alone_teaches_nothing_about_answers(start_server, monkeypatch):
    server, learnt = start_server(say="x"), []
    monkeypatch.setattr(server.client_state.admission, "learn", lambda *what: learnt.append(what))
    server.post("/v1/completions", {"prompt": "a", "echo": True, "max_tokens": 0})
    assert not learnt
    server.post("/v1/completions", {"prompt": "a", "echo": True, "max_tokens": 1})
    assert learnt == [(1, 1)]
