"""Every example runs, on the embedded model; and the README's server answers the openai package."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
IN_PROCESS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "openai_client.py")
DEADLINE = 120
MODEL = "smollm2-135m-instruct"
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def run(path: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def wait_for_load(url: str, count: int) -> None:
    """Until the server counts so many open sequences."""
    deadline = time.monotonic() + 10
    while (load := httpx.get(f"{url}/load").json()["server_load"]) != count:
        assert time.monotonic() < deadline, f"the server still counts {load} sequences"
        time.sleep(0.01)


@pytest.mark.usefixtures("smollm2_gguf")
@pytest.mark.parametrize("name", IN_PROCESS)
def test_example(name: str) -> None:
    assert run(EXAMPLES / name).strip()


@pytest.fixture(scope="module")
def url(smollm2_gguf: Path) -> Iterator[str]:
    """`headrace serve` as a user starts it, with the image's spelling of the model."""
    command = [sys.executable, "-m", "headrace", "serve", "--model", "smollm2-135m-instruct"]
    options = ["--dtype", "float32", "--quantization", "none", "--max-model-len", "1024", "--port", "0"]
    server = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    report = []
    for line in server.stderr:
        report.append(line)
        if "curl" in line:
            break
    assert any("Longest context" in line for line in report), report
    yield re.findall(r"http://127\.0\.0\.1:\d+", report[-1])[0]
    server.send_signal(signal.SIGINT)
    assert server.wait(DEADLINE) == 0, "Ctrl-C did not end it cleanly"


def test_the_openai_package_gets_answers(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="unused")
    model = client.models.list().data[0].id
    answer = client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, max_tokens=20)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    chunks = client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        temperature=0,
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    for chunk in chunks:
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        usage = chunk.usage or usage
    assert text == answer.choices[0].message.content
    assert usage.completion_tokens == answer.usage.completion_tokens
    completion = client.completions.create(model=model, prompt="1, 2, 3,", temperature=0, max_tokens=12, logprobs=2)
    assert "5" in completion.choices[0].text and len(completion.choices[0].logprobs.tokens) == 12


async def test_the_async_client_gets_many_at_once(url: str) -> None:
    import asyncio

    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="unused")
    tasks = [
        client.completions.create(
            model="smollm2-135m-instruct", prompt=f"Number {i}:", max_tokens=8, temperature=0, n=1, seed=i
        )
        for i in range(12)
    ]
    answers = await asyncio.gather(*tasks)
    assert all(answer.usage.completion_tokens == 8 for answer in answers)


def test_echo_logprobs_and_n_together(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="unused")
    answer = client.completions.create(
        model="smollm2-135m-instruct", prompt="One two three", echo=True, logprobs=1, n=2, max_tokens=3, seed=1
    )
    for choice in answer.choices:
        assert choice.text.startswith("One two three")
        assert choice.logprobs.token_logprobs[0] is None and len(choice.logprobs.tokens) == 6


def test_a_broken_connection_frees_its_sequence(url: str) -> None:
    host, port = re.fullmatch(r"http://(.+):(\d+)", url).groups()
    body = json.dumps({"model": MODEL, "prompt": "Once", "max_tokens": 900, "ignore_eos": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        wait_for_load(url, 1)
    wait_for_load(url, 0)


NASTY = {
    "one allowed token that ends, and a minimum": {"allowed_token_ids": [2], "min_tokens": 2},
    "every token stops, and a minimum": {"stop_token_ids": list(range(49_152)), "min_tokens": 4},
    "next to no probability": {"top_p": 1e-10},
    "a penalty that overflows": {"repetition_penalty": 1e-40},
    "a penalty that overflows the other way": {"repetition_penalty": 1e38},
    "a cold that overflows": {"temperature": 1e-40},
    "more than any vocabulary": {"top_k": 10**30},
    "a priority beyond 64 bits": {"priority": 2**70},
    "a seed beyond 64 bits": {"seed": 2**70},
    "everything unlikely": {"logit_bias": {str(token): -100 for token in range(49_152)}},
    "a template's self": {"chat_template_kwargs": {"self": 1}},
}


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_request_hurts_nobody_else(url: str, name: str) -> None:
    nasty = {"temperature": 1, "max_tokens": 8, **NASTY[name], "model": MODEL, "messages": MESSAGES}
    response = httpx.post(f"{url}/v1/chat/completions", json=nasty, timeout=DEADLINE)
    assert 200 <= response.status_code < 500, response.text
    wait_for_load(url, 0)
    assert httpx.get(f"{url}/health").status_code == 200
    normal = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 20}
    answer = httpx.post(f"{url}/v1/chat/completions", json=normal, timeout=DEADLINE).json()
    assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."


def test_the_client_example(url: str) -> None:
    assert "gravity" in run(EXAMPLES / "openai_client.py", HEADRACE_URL=url).lower()
