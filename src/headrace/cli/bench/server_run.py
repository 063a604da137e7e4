"""One run against a server: find the model, ask once to see that it answers, then the load."""

import asyncio
import json
import random
import time

from headrace.cli.bench.arrivals import arrival_seconds
from headrace.cli.bench.prompts import (
    BenchPrompt,
    RandomLengths,
    random_prompts,
    sharegpt_like_prompts,
    sharegpt_prompts,
)
from headrace.cli.bench.serve_options import BenchServeOptions
from headrace.cli.bench.server_load import Load, LoadGenerator, LoadRequest, RequestRecord
from headrace.cli.bench.server_report import ServerRun
from headrace.cli.client.http import Answer, ConnectionFailed, HttpClient
from headrace.cli.client.models import first_model
from headrace.cli.open_files import allow_many_connections
from headrace.cli.progress import ProgressLine
from headrace.core.errors import HeadraceError

PROGRESS_SECONDS = 0.5


class ServerBenchmark:
    """Runs what `options` say. `records` fills while it runs; an interrupted run has a result too."""

    def __init__(self, options: BenchServeOptions) -> None:
        self._options = options
        self._model = options.model or ""
        self._cpu_seconds = 0.0
        self._generator: LoadGenerator | None = None
        self._complete = False

    @property
    def records(self) -> list[RequestRecord]:
        """The requests that have ended."""
        return self._generator.records if self._generator is not None else []

    async def run(self) -> None:
        """Measure. Raises `HeadraceError` if the server cannot be reached, or refuses the first request."""
        allow_many_connections()
        options = self._options
        client = HttpClient(options.address, options.api_key, options.request_timeout_seconds or None)
        try:
            self._model = self._model or await first_model(client, options.address)
            load = self._load()
            await self._try_once(client, load.requests[0])
            await self._run(LoadGenerator(client, load))
        finally:
            client.close()

    def result(self) -> ServerRun:
        """What was measured."""
        assert self._generator is not None
        return ServerRun(
            self._model, self.records, self._generator.seconds, self._cpu_seconds, interrupted=not self._complete
        )

    async def _run(self, generator: LoadGenerator) -> None:
        self._generator = generator
        began = time.process_time()
        progress = asyncio.create_task(self._show_progress())
        try:
            await generator.run()
            self._complete = True
        finally:
            self._cpu_seconds = time.process_time() - began
            progress.cancel()
            await asyncio.wait((progress,))

    async def _try_once(self, client: HttpClient, request: LoadRequest) -> None:
        try:
            answer = await client.request("POST", self._options.path, request.body)
        except ConnectionFailed as error:
            raise self._options.address.unreachable(error) from None
        if answer.status != 200:
            raise _refused(answer)

    def _load(self) -> Load:
        options, source = self._options, random.Random(self._options.seed)
        prompts = _prompts(options, source)
        due = arrival_seconds(source, len(prompts), options.request_rate, options.burstiness)
        requests = [
            LoadRequest(self._body(prompt), seconds, prompt.prompt_tokens)
            for prompt, seconds in zip(prompts, due, strict=True)
        ]
        closed = options.max_concurrency is not None and not any(due)
        return Load(options.path, requests, options.max_concurrency, closed_loop=closed)

    def _body(self, prompt: BenchPrompt) -> bytes:
        chat = self._options.path.endswith("/chat/completions")
        asked = {"messages": [{"role": "user", "content": prompt.text}]} if chat else {"prompt": prompt.text}
        body = {
            "model": self._model,
            **asked,
            "max_tokens": prompt.output_tokens,
            "temperature": self._options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._options.ignore_eos:
            body["ignore_eos"] = True
        return json.dumps(body | self._options.extra_fields).encode()

    async def _show_progress(self) -> None:
        line = ProgressLine()
        try:
            while not self._options.disable_tqdm:
                await asyncio.sleep(PROGRESS_SECONDS)
                if line.due():
                    line.show(f"{len(self.records):,} of {self._options.num_prompts:,} requests have ended")
        finally:
            line.clear()


def _refused(answer: Answer) -> HeadraceError:
    return HeadraceError(
        f"The server refused the first request with status {answer.status}: "
        f"{answer.body[:300].decode(errors='replace')}",
        rule="One request is tried before the load begins",
        fix="Change what it names; --model, --api-key, --endpoint and the lengths are the usual causes",
    )


def _prompts(options: BenchServeOptions, source: random.Random) -> list[BenchPrompt]:
    if options.dataset_path is not None:
        return sharegpt_prompts(source, options.dataset_path, options.num_prompts, options.sharegpt_output_len)
    if options.dataset_name == "sharegpt":
        return sharegpt_like_prompts(source, options.num_prompts)
    lengths = RandomLengths(
        options.random_input_len, options.random_output_len, options.random_range_ratio, options.random_prefix_len
    )
    return random_prompts(source, lengths, options.num_prompts)
