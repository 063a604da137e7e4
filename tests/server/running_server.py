"""A real server, on a real socket, before a fake engine in a process of its own.

Fixtures for the server's and the command line's tests; and a program, `python running_server.py TOKENIZER_DIRECTORY
SCRIPT`, for those that send signals.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import openai
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from headrace.cli.engine_launcher import EngineProcess
from headrace.core.config import EngineConfig
from headrace.server import event_loop
from headrace.server.engine_client import EngineClient
from headrace.server.model_text import ModelText
from headrace.server.options import ServerOptions
from headrace.server.run import listen, serve
from headrace.server.state import ServerState
from headrace.testing.fake_engine import Script
from headrace.text.tokenizer import open_tokenizer

MODEL = "fake-model"
SPECIAL_TOKENS = ("<|im_start|>", "<unk>", "<|im_end|>")
END = 2
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'function' %}{{ raise_exception('No functions') }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real tokenizer with one token a byte, so that characters and stop strings span tokens."""
    directory = tmp_path_factory.mktemp("tokenizer")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.save(str(directory / "tokenizer.json"))
    config = {"eos_token": SPECIAL_TOKENS[END], "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="session")
def model_text(tokenizer_directory: Path) -> ModelText:
    """The front's share of the fake model."""
    return ModelText(open_tokenizer(tokenizer_directory), (END,))


class FakeEngineProcess(EngineProcess):
    """The real launcher with the fake engine's command; its configuration is a script."""

    def __init__(self, script: Script, text: ModelText) -> None:
        super().__init__(EngineConfig(), (sys.executable, "-m", "headrace.testing.fake_engine"))
        self._script = script
        self._text = text

    def load(self) -> ModelText:
        self.reload()
        return self._text

    def reload(self) -> None:
        self.configure(self._script)


class RunningServer:
    """A server on a thread of its own."""

    def __init__(self, script: Script, text: ModelText, options: ServerOptions | None = None) -> None:
        self.engine = FakeEngineProcess(script, text)
        self.listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.error: BaseException | None = None
        # A connection for each request, as httpx.get has, but without the 25 ms in which that reads certificates.
        self.http = httpx.Client(verify=False, timeout=20, limits=httpx.Limits(max_keepalive_connections=0))
        self._options = options or ServerOptions()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._started.wait(10)

    def client(self) -> openai.OpenAI:
        http = openai.DefaultHttpxClient(verify=False)
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20, http_client=http)

    def async_client(self) -> openai.AsyncOpenAI:
        http = openai.DefaultAsyncHttpxClient(verify=False)
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20, http_client=http
        )

    def post(self, path: str, body: object) -> httpx.Response:
        return self.http.post(self.url + path, json=body)

    def get(self, path: str) -> httpx.Response:
        return self.http.get(self.url + path)

    def raw(self) -> socket.socket:
        """A bare connection, for clients that misbehave."""
        return socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])), timeout=10)

    @property
    def num_running(self) -> int:
        """How many sequences the engine itself says it runs."""
        return self.client_state.client.stats.num_running

    def wait_until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    def wait_ready(self) -> "RunningServer":
        self.wait_until(lambda: self.get("/ready").status_code == 200)
        return self

    def kill_engine(self) -> None:
        assert self.engine.pid is not None
        os.kill(self.engine.pid, signal.SIGKILL)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)
        self.http.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                event_loop.run(self._serve())
        except BaseException as error:
            self.error = error

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        client = EngineClient(self.engine, self._options)
        self.client_state = ServerState(client, (MODEL, "alias"), "somewhere", self._options, max_logprobs=5)
        self._started.set()
        await serve(self.client_state, self.listener, on_ready=lambda: None)


StartServer = Callable[..., RunningServer]


@contextlib.contextmanager
def starting_servers(model_text: ModelText) -> Iterator[StartServer]:
    """Starts servers with scripts, and stops them at the end."""
    running: list[RunningServer] = []

    def start(
        *,
        say: str | None = None,
        wait: bool = True,
        sampling_defaults: dict[str, float] | None = None,
        options: dict[str, object] | None = None,
        **script: object,
    ) -> RunningServer:
        tokens = [] if say is None else model_text.tokenizer.encode(say, add_special_tokens=False)
        settings = Script(token_ids=tokens, vocab_size=model_text.tokenizer.vocab_size, **script)  # type: ignore[arg-type]
        own_text = dataclasses.replace(model_text, sampling_defaults=sampling_defaults or {})
        server = RunningServer(settings, own_text, ServerOptions(**(options or {})))  # type: ignore[arg-type]
        running.append(server)
        return server.wait_ready() if wait else server

    yield start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.server.run._ARRIVAL_SECONDS", 0.0)  # nobody sends anything any more
        for server in running:
            server.stop()


@pytest.fixture
def start_server(model_text: ModelText) -> Iterator[StartServer]:
    """Starts servers for one test."""
    with starting_servers(model_text) as start:
        yield start


@pytest.fixture(scope="session")
def server(model_text: ModelText) -> Iterator[RunningServer]:
    """A server that answers every request with the same short text."""
    with starting_servers(model_text) as start:
        yield start(say="Hello wörld 🙂!")


async def _front(directory: str, script: str) -> None:
    """Serve as `headrace serve` does, saying first where, and which process the engine is."""
    engine = FakeEngineProcess(msgspec.json.decode(script, type=Script), ModelText(open_tokenizer(directory), (END,)))
    listener = listen("127.0.0.1", 0)
    state = ServerState(EngineClient(engine), (MODEL,), root="somewhere")

    def on_ready() -> None:
        print(listener.getsockname()[1], engine.pid, flush=True)

    await serve(state, listener, on_ready=on_ready)


if __name__ == "__main__":
    event_loop.run(_front(*sys.argv[1:]))
