"""The step loop's body: take requests, plan a step, launch it, commit the oldest one in flight, say what it made.

The same object serves `LLM` in its own process and the engine process behind the HTTP server.
"""

from array import array
from collections import deque

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.limits import ModelLimits
from headrace.core.outputs import TokenLogprobs
from headrace.engine.request import Request
from headrace.engine.requests import make_requests
from headrace.engine.run.runner import LaunchedStep, Runner
from headrace.engine.sample.noise import derive_seed
from headrace.engine.sched.plan import PlannedRow
from headrace.engine.sched.scheduler import Scheduler
from headrace.wire.messages import LENGTH, RUNNING, STOP, AddRequest, EngineStats, StepOutput

NO_TOKEN = -1


class Engine:
    """One model on one device. `steps_in_flight` is 1 where the device does not work ahead of the host (a CPU)."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        limits: ModelLimits,
        *,
        seed: int = 0,
        steps_in_flight: int = 1,
        priority_scheduling: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self.limits = limits
        self._runner = runner
        self._seed = seed
        self._max_in_flight = steps_in_flight
        self._by_priority = priority_scheduling
        self._in_flight: deque[LaunchedStep] = deque()
        self._arrivals = 0
        self._stats = EngineStats(num_blocks=scheduler.kv.pool.num_blocks)

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do."""
        return self.scheduler.has_work or bool(self._in_flight)

    def add(self, message: AddRequest) -> None:
        """Queue a request. Raises `HeadraceError`, with nothing changed, if the model cannot serve it."""
        self.limits.check(message.prompt_token_ids, message.params)
        self._arrivals += 1
        priority = message.priority if self._by_priority else 0
        hash_seed = self.scheduler.kv.hasher.seed(message.cache_salt)
        seed = derive_seed(self._seed, self._arrivals)
        parent, *children = make_requests(message, self.limits, (priority, self._arrivals), seed, hash_seed)
        self.scheduler.add(parent, children=children)
        self._stats.prompt_tokens += len(message.prompt_token_ids)

    def abort(self, uids: list[int]) -> None:
        """End these sequences without further output."""
        for uid in uids:
            self.scheduler.abort(uid)

    def reset(self) -> None:
        """Forget every request and cached prefix: back to a known state, wherever a step was interrupted."""
        self._in_flight.clear()
        self.scheduler.reset()

    def reset_prefix_cache(self) -> None:
        """Forget cached prefixes; sequences that run keep what they have."""
        self.scheduler.kv.pool.forget_all()

    def step(self) -> StepOutput | None:
        """Launch the next step and commit the oldest one in flight, if it is due; what that one made."""
        plan = self.scheduler.schedule()
        if plan.rows:
            self._in_flight.append(self._runner.launch(plan))
        elif not self._in_flight and self.scheduler.has_work:
            raise HeadraceError("No request can go on, and none is being computed", kind=ErrorKind.INTERNAL)
        if not self._in_flight or (plan.rows and len(self._in_flight) < self._max_in_flight):
            return None
        self._stats.steps += 1
        return self._commit(self._in_flight.popleft())

    def close(self) -> None:
        """Let go of the model and the cache; the engine is of no use afterwards."""
        self._in_flight.clear()
        self._runner.close()

    def stats(self) -> EngineStats:
        """Counters since the start and the present load."""
        scheduler, stats = self.scheduler, self._stats
        stats.num_running, stats.num_waiting = len(scheduler.running), len(scheduler.waiting)
        stats.num_free_blocks = scheduler.kv.pool.num_free
        stats.prefix_cache_queries, stats.prefix_cache_hits = scheduler.kv.queries, scheduler.kv.hits
        stats.num_preemptions = scheduler.num_preemptions
        return stats

    def _commit(self, step: LaunchedStep) -> StepOutput:
        tokens, logprobs = step.read()
        output = _OutputColumns()
        for row, tensors in step.prompt_logprobs:
            params = row.request.params
            row.request.prompt_logprobs += tensors.read([params.prompt_logprobs or 0] * len(tensors.tokens))
        for row in step.plan.rows:
            if self.scheduler.commit(row) and row.samples:
                uid = row.request.uid
                self._take(row, tokens[uid], logprobs.get(uid), output)
        return output.message()

    def _take(self, row: PlannedRow, token: int, logprobs: TokenLogprobs | None, output: "_OutputColumns") -> None:
        """Append a new token to its request, and end the request if that was its last."""
        request = row.request
        if row.known == request.num_prompt:
            output.first(request)
        request.tokens.append(token)
        finish, stop_token = _finish(request, token)
        output.add(request.uid, token, finish, stop_token, logprobs)
        self._stats.generation_tokens += 1
        if finish != RUNNING:
            self.scheduler.finish(request)


def _finish(request: Request, token: int) -> tuple[int, int]:
    """Why a request ends with this token, if it does; and the stop token that the user named, or -1."""
    if len(request.tokens) - request.num_prompt >= request.params.min_tokens:
        if token in request.eos_token_ids:
            return STOP, NO_TOKEN
        if token in request.stop_token_ids:
            return STOP, token
    return (LENGTH if len(request.tokens) >= request.max_total_tokens else RUNNING), NO_TOKEN


class _OutputColumns:
    """A `StepOutput` in the making."""

    def __init__(self) -> None:
        self._uids, self._tokens = array("q"), array("i")
        self._finish, self._stop_tokens = array("b"), array("i")
        self._logprobs: list[TokenLogprobs | None] = []
        self._prompt_logprobs: dict[int, list[TokenLogprobs | None]] = {}
        self._cached_tokens: dict[int, int] = {}

    def first(self, request: Request) -> None:
        """Say what is said once a sequence; a fork has no prompt logprobs of its own."""
        self._cached_tokens[request.uid] = request.num_cached or 0
        if len(request.prompt_logprobs) == request.num_prompt and request.params.prompt_logprobs is not None:
            self._prompt_logprobs[request.uid] = request.prompt_logprobs

    def add(self, uid: int, token: int, finish: int, stop_token: int, logprobs: TokenLogprobs | None) -> None:
        """One row."""
        self._uids.append(uid)
        self._tokens.append(token)
        self._finish.append(finish)
        self._stop_tokens.append(stop_token)
        self._logprobs.append(logprobs)

    def message(self) -> StepOutput:
        """All rows as bytes."""
        return StepOutput(
            self._uids.tobytes(),
            self._tokens.tobytes(),
            self._finish.tobytes(),
            self._stop_tokens.tobytes(),
            self._logprobs if any(entry is not None for entry in self._logprobs) else None,
            self._prompt_logprobs,
            self._cached_tokens,
        )
