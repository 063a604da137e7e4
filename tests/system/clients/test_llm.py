"""The command line tool `llm`, unchanged, against a real server that it knows from extra-openai-models.yaml."""

import json
import os
import subprocess

import pytest
from environments import TALK_SECONDS, python_client

MODELS = """
- model_id: here
  model_name: {model}
  api_base: {url}
  api_key_name: headrace
- model_id: here-completion
  model_name: {model}
  api_base: {url}
  api_key_name: headrace
  completion: true
- model_id: elsewhere
  model_name: nobody
  api_base: {url}
  api_key_name: headrace
"""
GREEDY = ("-o", "temperature", "0", "-o", "max_tokens", "12")


@pytest.fixture(scope="module")
def llm(served, tmp_path_factory):
    """Runs the tool; what it printed, or with `fails` the error that it ended with."""
    home = tmp_path_factory.mktemp("llm")
    (home / "extra-openai-models.yaml").write_text(MODELS.format(url=served.url, model=served.model))
    (home / "keys.json").write_text(json.dumps({"headrace": served.key}))
    program = python_client("llm") / "llm"

    def run(*arguments: str, fails: bool = False, said: str = "") -> str:
        environment = os.environ | {"LLM_USER_PATH": str(home)}
        command = [str(program), *arguments]
        done = subprocess.run(
            command, input=said, env=environment, capture_output=True, text=True, timeout=TALK_SECONDS, check=False
        )
        assert (done.returncode != 0) is fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def test_a_stream_and_a_whole_answer_are_the_same(llm):
    streamed = llm("-m", "here", "Hello!", *GREEDY)
    assert streamed.strip()
    assert llm("-m", "here", "--no-stream", "Hello!", *GREEDY) == streamed


def test_a_conversation_goes_on_and_its_usage_is_logged(llm):
    llm("-m", "here", "-s", "Be brief.", "My name is Ada.", *GREEDY)
    assert llm("-c", "What is my name?", *GREEDY).strip()
    last = json.loads(llm("logs", "-n", "1", "--json"))[0]
    assert last["prompt"] == "What is my name?"
    assert (last["output_tokens"], last["input_tokens"] > 30) == (12, True)


def test_chat_in_the_terminal(llm):
    assert "Chatting with here" in llm("chat", "-m", "here", *GREEDY, said="Hello!\nexit\n")


def test_the_older_route(llm):
    assert llm("-m", "here-completion", "Once upon a", *GREEDY).strip()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "here", "--key", "wrong", "Hi"], "Error code: 401"),
        (["-m", "elsewhere", "Hi"], "Served: 'tiny'"),
        (["-m", "here", "-o", "max_tokens", "1000000", "Hi"], "context holds"),
    ],
)
def test_refusals_are_told(llm, arguments, said):
    assert said in llm(*arguments, fails=True)
