"""The server's side of the engine: requests go out, their rows come back, and what cannot be done is refused with why.

An engine that is lost takes its requests with it: each ends with an error that says why. None is sent to the next
engine again, so what killed one engine kills another only if its client asks again.
"""

import math
from collections.abc import Sequence

from headrace.core.counted import counted
from headrace.core.errors import HeadraceError
from headrace.server.admission import Admission
from headrace.server.dispatcher import Dispatcher
from headrace.server.engine_life import GRACE_SECONDS
from headrace.server.engine_supervisor import EngineSupervisor
from headrace.server.errors import ApiError, unavailable
from headrace.server.launcher import EngineLauncher
from headrace.server.metrics import ServerMetrics
from headrace.server.model_text import ModelText
from headrace.server.options import ServerOptions
from headrace.server.submission import Submission
from headrace.text.stream import RequestStream
from headrace.wire.messages import AddRequest, EngineStats, Event, Ready, RequestFailed, ResetPrefixCache, StepOutput


class EngineClient:
    """The one connection to the engine. All methods belong to the event loop's thread."""

    def __init__(self, launcher: EngineLauncher, options: ServerOptions | None = None) -> None:
        options = options or ServerOptions()
        self.metrics = ServerMetrics()
        self.admission = Admission(options, self.metrics)
        self.stats = EngineStats()
        self._engine = EngineSupervisor(launcher, options, self._on_event, self._on_lost, self._has_work)
        self._dispatcher = Dispatcher(self._engine.send, self.metrics)

    async def start(self) -> None:
        """Start the engine and load the model's text side. Returns when ready; raises why it cannot be."""
        await self._engine.start()

    async def keep_running(self) -> None:
        """Start the engine again whenever it is lost. Raises why, once it may not be, and returns if all is ending."""
        await self._engine.keep_running()

    def drain(self) -> None:
        """The server is about to stop. What it has taken is finished; it is not ready for more."""
        self._engine.drain()

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End the engine process and wait until it is gone. Open requests fail."""
        self.fail_open_requests(stopping())
        await self._engine.stop(grace_seconds)

    def kill(self) -> None:
        """End the engine process now, without waiting for anything."""
        self._engine.kill()

    @property
    def loading(self) -> bool:
        """Whether the model is still being fetched or loaded, which may be long after the server has been stopped."""
        return self._engine.loading

    @property
    def alive(self) -> bool:
        """Whether the engine process lives and has not reported a failure."""
        return self._engine.alive

    @property
    def ready(self) -> bool:
        """Whether requests can be taken now."""
        return self._engine.takes_work

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""
        return self._engine.draining

    @property
    def seconds_late(self) -> float:
        """For how long the engine has made no progress, if it has work and that is too long; else 0.0."""
        return self._engine.seconds_late()

    @property
    def text(self) -> ModelText:
        """The model's tokenizer and defaults. Raises a 503 while there is none."""
        if self._engine.text is None:
            raise self.refusal()
        return self._engine.text

    @property
    def limits(self) -> Ready:
        """What the engine said of itself when it became ready. Raises a 503 before."""
        if self._engine.ready is None:
            raise self.refusal()
        return self._engine.ready

    @property
    def num_open_sequences(self) -> int:
        """How many sequences the engine works on for this server."""
        return self._dispatcher.num_open_sequences

    def check_ready(self) -> None:
        """Raise a 503 that says why, unless requests can be taken now."""
        if not self.ready:
            raise self.refusal()

    def new_uids(self, count: int) -> list[int]:
        """Names for `count` sequences, never used before."""
        return self._dispatcher.new_uids(count)

    def submit(self, requests: Sequence[tuple[AddRequest, RequestStream]]) -> Submission:
        """Send requests that are answered together. Raises a 503 if the engine cannot take them."""
        if not self.alive or self._engine.ready is None:
            raise self.refusal()
        if not self.num_open_sequences:
            self._engine.work_began()
        return self._dispatcher.submit(requests)

    def reset_prefix_cache(self) -> None:
        """Have the engine forget every cached prefix that no running sequence holds."""
        self.check_ready()
        self._engine.send(ResetPrefixCache())

    def fail_open_requests(self, error: HeadraceError) -> None:
        """End every open request with `error`."""
        self._dispatcher.fail_all(error)

    def refusal(self) -> HeadraceError:
        """The 503 that says why requests cannot be taken now."""
        engine = self._engine
        if engine.stopping:
            return stopping()
        if (outage := engine.outage) is not None:  # whoever's fault it was, it is not this request's
            seconds = max(1, math.ceil(engine.start_seconds))
            return unavailable(outage.what, "Send the request again in a moment", retry_after_seconds=seconds)
        if engine.stopped_by_itself:
            return unavailable("The engine has stopped", "Send the request again", retry_after_seconds=1)
        if late := self.seconds_late:
            sequences = counted(self.num_open_sequences, "sequence")
            what = f"The engine has made no progress for {late:.0f} s, with {sequences} open"
            fix = "Wait: it is started again if it does not recover within --engine-hang-timeout"
            return unavailable(what, fix, retry_after_seconds=5)
        fix = "Try again in a moment; /ready tells when"
        return unavailable("The model is still loading", fix, retry_after_seconds=2)

    def _has_work(self) -> bool:
        return self.num_open_sequences > 0

    def _on_event(self, event: Event) -> None:
        match event:
            case StepOutput():
                self._dispatcher.on_step(event)
                self.admission.on_step(event)
            case RequestFailed():
                self._dispatcher.on_request_failed(event)
            case EngineStats():
                self.stats = event
                self.metrics.on_stats(event)
            case Ready():
                self.metrics.on_ready(event)
                self.admission.start_engine(event.max_num_batched_tokens)

    def _on_lost(self) -> None:
        self.stats = EngineStats()
        self.fail_open_requests(self.refusal())


def stopping() -> ApiError:
    """The 503 for what is open, or comes, while the server stops."""
    return unavailable("The server is stopping", "Send the request again", retry_after_seconds=1)
