"""Who answers in `headrace chat`: a server that speaks OpenAI's API, or a model in this process."""

import asyncio
import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from headrace.cli.chat_session import Message
from headrace.cli.client.address import ServerAddress
from headrace.cli.engine_environment import prepare_this_process
from headrace.core.config import EngineConfig
from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.sampling_params import RequestOutputKind, SamplingParams

CONNECT_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 600.0
"""A long prompt on a slow machine takes minutes to its first token."""
Write = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answering:
    """How answers are made; None is the model's own default."""

    temperature: float | None = None
    max_tokens: int | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were asked for."""
        fields = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in fields.items() if value is not None}


class RemoteModel:
    """A server at a URL, with or without /v1. Raises `HeadraceError` when it cannot be reached or refuses."""

    def __init__(self, url: str, model: str | None, api_key: str | None, answering: Answering) -> None:
        self._url = url
        self._address = ServerAddress.parse(url)
        self._base = f"{self._address.root}/v1"
        self._headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {api_key}"} if api_key else {}
        )
        self._answering = answering
        self._model = model or self._first_model()

    def speak(self, messages: list[Message], write: Write) -> None:
        """See `Speaker`."""
        body = {"model": self._model, "messages": messages, "stream": True, **self._answering.given()}
        with closing(self._connection()) as connection:
            for event in self._events(self._request(connection, "POST", "/chat/completions", json.dumps(body))):
                for choice in event.get("choices", ()):
                    write((choice.get("delta") or {}).get("content") or "")

    def _first_model(self) -> str:
        with closing(self._connection()) as connection:
            answer = self._request(connection, "GET", "/models")
            with self._reading():
                raw = answer.read()
        try:
            return str(json.loads(raw)["data"][0]["id"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise HeadraceError(
                f"{self._url} does not name a model: it answered {raw[:80]!r} for {self._base}/models",
                rule="A server that speaks OpenAI's API lists its models there",
                fix="Check the address, or name the model: headrace chat MODEL --url URL",
            ) from None

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._address.https else http.client.HTTPConnection
        return kind(self._address.host, self._address.port, timeout=CONNECT_TIMEOUT_SECONDS)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """A connection that breaks is an error, never the end of an answer."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise self._cut_short(f": {error}") from error

    def _cut_short(self, why: str = "") -> HeadraceError:
        return HeadraceError(
            f"The connection to {self._url} ended in mid-answer{why}", fix="Ask again", kind=ErrorKind.UNAVAILABLE
        )

    def _events(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        while True:
            with self._reading():
                line = response.readline()
            if not line:
                raise self._cut_short()
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            yield self._event(data)

    def _event(self, data: bytes) -> dict[str, Any]:
        try:
            event = dict(json.loads(data))
        except (ValueError, TypeError):
            raise self._cut_short(f": its last words were {data[-80:]!r}") from None
        if "error" in event:
            raise _refused(ErrorKind.INTERNAL.value, data)
        return event

    def _request(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None
    ) -> http.client.HTTPResponse:
        try:
            connection.connect()
            connection.sock.settimeout(READ_TIMEOUT_SECONDS)
            connection.request(method, self._base + path, body, self._headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise self._address.unreachable(error) from error
        if response.status != 200:
            with self._reading():
                raise _refused(response.status, response.read())
        return response


class LocalModel:
    """A model in this process; leaving the block gives its memory back."""

    def __init__(self, config: EngineConfig, answering: Answering) -> None:
        prepare_this_process()
        from headrace import AsyncLLM

        self._llm = AsyncLLM(**asdict(config))
        self._answering = answering
        self._runner = asyncio.Runner()
        self._count = 0

    def speak(self, messages: list[Message], write: Write) -> None:
        """See `Speaker`. Ctrl-C cancels the answer and then comes out as `KeyboardInterrupt`."""
        self._runner.run(self._speak(messages, write))

    async def _speak(self, messages: list[Message], write: Write) -> None:
        tokenizer = self._llm.get_tokenizer()
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        token_ids = tokenizer.encode(prompt, add_special_tokens=False)
        self._count += 1
        answer = self._llm.generate({"prompt_token_ids": token_ids}, self._params(), f"chat-{self._count}")
        async for output in answer:
            write(output.outputs[0].text)

    def _params(self) -> SamplingParams:
        defaults = msgspec.to_builtins(self._llm.get_default_sampling_params())
        changes = {"max_tokens": None, **self._answering.given(), "output_kind": RequestOutputKind.DELTA}
        return SamplingParams(**{**defaults, **changes})

    def __enter__(self) -> "LocalModel":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        self._llm.close()


def _refused(status: int, body: bytes) -> HeadraceError:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")[:200]
    kind = ErrorKind.INVALID_REQUEST if status < ErrorKind.INTERNAL.value else ErrorKind.UNAVAILABLE
    return HeadraceError(f"The server answered with status {status}: {message}", kind=kind)
