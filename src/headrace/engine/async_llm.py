"""`AsyncLLM`: the engine on a thread of this process, for asyncio users."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TypeVar

from headrace.core.argument_words import told_in_python
from headrace.core.config import EMBEDDED_MODEL, EngineConfig
from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.outputs import RequestOutput
from headrace.core.sampling_params import SamplingParams
from headrace.engine.build import load_engine
from headrace.engine.frontend import Frontend
from headrace.engine.loaded import LoadedEngine
from headrace.engine.loop import EngineLoop
from headrace.engine.prompts import Prompt, checked_params, parse_prompt
from headrace.text.stream import RequestStream
from headrace.text.tokenizer import Tokenizer
from headrace.wire.messages import (
    AbortRequests,
    AddRequest,
    Command,
    EngineFailed,
    Event,
    RequestFailed,
    ResetPrefixCache,
    Shutdown,
    StepOutput,
)

_Item = RequestOutput | HeadraceError
T = TypeVar("T")


class _QueueInbox:
    """Commands from other threads."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def drain(self, *, wait: bool) -> list[Command]:
        """See `Inbox`."""
        commands = [self.queue.get()] if wait else []
        while not self.queue.empty():
            commands.append(self.queue.get())
        return commands


class AsyncLLM:
    """A model that answers many asyncio tasks at once. Keyword arguments are those of `LLM`.

    Construct it anywhere; use it from one event loop. `close()` (or `async with`) stops the thread and gives all
    memory back.
    """

    def __init__(self, model: str = EMBEDDED_MODEL, **kwargs: object) -> None:
        with told_in_python():
            self._loaded: LoadedEngine | None = load_engine(EngineConfig.from_kwargs(model=model, **kwargs))
        self._inbox = _QueueInbox()
        self._frontend = Frontend(self._loaded.optional_tokenizer, self._loaded.eos_token_ids, self._abort_uids)
        self._queues: dict[int, asyncio.Queue[_Item]] = {}
        self._open: dict[str, AddRequest] = {}
        self._failure: HeadraceError | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        loop = EngineLoop(self._loaded.engine, self._inbox, self._send)
        self._thread = threading.Thread(target=loop.run, name="headrace-engine", daemon=True)
        self._thread.start()

    async def generate(
        self, prompt: Prompt, sampling_params: SamplingParams, request_id: str, *, priority: int = 0
    ) -> AsyncIterator[RequestOutput]:
        """The outputs of one request as they are made, in the form that `output_kind` asks for.

        Leaving the iterator (break, cancellation) aborts the request.
        """
        loaded = self._alive()
        self._use_loop(asyncio.get_running_loop())
        if request_id in self._open:
            raise HeadraceError(f"request_id {request_id!r} is in use", fix="Use another one", param="request_id")
        parsed = self._frontend.tokenized(parse_prompt(prompt))
        loaded.engine.limits.check(parsed.token_ids or [], checked_params(sampling_params))
        message, stream = self._frontend.prepare(parsed, sampling_params, request_id, priority)
        items: asyncio.Queue[_Item] = asyncio.Queue()
        self._open[request_id], self._queues[id(stream)] = message, items
        self._frontend.open(message, stream)
        self._inbox.queue.put(message)
        try:
            while True:
                item = await items.get()
                if isinstance(item, HeadraceError):
                    raise item
                yield item
                if item.finished:
                    return
        finally:
            self._close_request(request_id, message, stream)

    async def abort(self, request_id: str) -> None:
        """End a request; its iterator gets a last output with finish_reason "abort"."""
        message = self._open.get(request_id)
        if message is not None:
            self._abort_uids(message.uids)
            stream = self._frontend.stream_of(message.uids)
            if stream is not None:
                stream.abort()
                self._deliver(stream)

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes before the next step."""
        self._alive()
        self._inbox.queue.put(ResetPrefixCache())

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._alive().tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """Defaults with what the model's generation_config.json says."""
        return self._alive().default_sampling_params()

    def close(self) -> None:
        """Stop the thread and give back the model and the cache. Open requests end with an error."""
        if self._loaded is None:
            return
        self._inbox.queue.put(Shutdown())
        self._thread.join()
        self._on_loop(self._fail_all, HeadraceError("The engine was closed", kind=ErrorKind.UNAVAILABLE))
        self._loaded.close()
        self._loaded = None
        self._frontend.detach()

    async def __aenter__(self) -> "AsyncLLM":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _alive(self) -> LoadedEngine:
        if self._loaded is None:
            raise HeadraceError("This AsyncLLM is closed", fix="Create a new one", kind=ErrorKind.UNAVAILABLE)
        if self._failure is not None:
            raise self._failure
        return self._loaded

    def _use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Outputs are handed to one event loop: the first, until it is closed."""
        if self._event_loop not in (None, loop) and not self._event_loop.is_closed():
            raise HeadraceError(
                "This AsyncLLM is used from two event loops", fix="Use it from one, or create one for each"
            )
        self._event_loop = loop

    def _on_loop(self, call: Callable[[T], None], argument: T) -> None:
        """Call on the event loop's thread; nobody is left to be told once that is closed."""
        if self._event_loop is not None:
            with contextlib.suppress(RuntimeError):
                self._event_loop.call_soon_threadsafe(call, argument)

    def _abort_uids(self, uids: list[int]) -> None:
        self._inbox.queue.put(AbortRequests(uids))

    def _close_request(self, request_id: str, message: AddRequest, stream: RequestStream) -> None:
        self._frontend.close(message)
        self._open.pop(request_id, None)
        self._queues.pop(id(stream), None)
        if not stream.finished:
            self._abort_uids(message.uids)

    def _send(self, event: Event) -> None:
        """Called on the engine's thread: what follows happens on the event loop's."""
        if isinstance(event, EngineFailed):
            self._failure = HeadraceError(event.what, rule=event.rule, fix=event.fix, kind=ErrorKind.UNAVAILABLE)
        self._on_loop(self._receive, event)

    def _receive(self, event: Event) -> None:
        if isinstance(event, StepOutput):
            for stream in self._frontend.dispatch(event):
                self._deliver(stream)
        elif isinstance(event, RequestFailed):
            self._refuse(event)
        elif isinstance(event, EngineFailed) and self._failure is not None:
            self._fail_all(self._failure)

    def _refuse(self, event: RequestFailed) -> None:
        stream = self._frontend.stream_of(event.uids)
        if stream is not None and id(stream) in self._queues:
            error = HeadraceError(event.what, rule=event.rule, fix=event.fix, param=event.param)
            self._queues[id(stream)].put_nowait(error)

    def _deliver(self, stream: RequestStream) -> None:
        output = stream.output()
        if output is not None and id(stream) in self._queues:
            self._queues[id(stream)].put_nowait(output)

    def _fail_all(self, error: HeadraceError) -> None:
        for items in self._queues.values():
            items.put_nowait(error)
