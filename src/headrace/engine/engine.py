"""The step loop's body: take requests, plan a step, launch it, commit the oldest one in flight, say what it made.

The same object serves `LLM` in its own process and the engine process behind the HTTP server.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from headrace.core.continuation import check_continuation
from headrace.core.errors import ErrorKind, HeadraceError
from headrace.core.limits import ModelLimits
from headrace.core.outputs import TokenLogprobs
from headrace.engine.output_columns import NO_TOKEN, OutputColumns
from headrace.engine.request import Request
from headrace.engine.requests import make_requests
from headrace.engine.run.step import Step, StepRunner
from headrace.engine.sample.noise import derive_seed
from headrace.engine.sched.plan import PlannedRow, StepPlan
from headrace.engine.sched.scheduler import Scheduler
from headrace.wire.messages import LENGTH, RUNNING, STOP, AddRequest, EngineStats, StepOutput


class Engine:
    """One model on one device. `steps_in_flight` is 1 where the device does not work ahead of the host (a CPU)."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: StepRunner,
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
        self._in_flight: deque[Step] = deque()
        self._arrivals = 0
        self._steps = 0
        self._prompt_tokens = 0
        self._generation_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do."""
        return self.scheduler.has_work or bool(self._in_flight)

    def add(self, message: AddRequest) -> None:
        """Queue a request. Raises `HeadraceError`, with nothing changed, if the model cannot serve it."""
        self._check(message)
        self._arrivals += 1
        priority = message.priority if self._by_priority else 0
        hash_seed = self.scheduler.kv.hasher.seed(message.cache_salt)
        seed = derive_seed(self._seed, self._arrivals)
        parent, *children = make_requests(message, self.limits, (priority, self._arrivals), seed, hash_seed)
        self.scheduler.add(parent, children=children)

    def abort(self, uids: list[int]) -> None:
        """End these sequences without further output."""
        for uid in uids:
            self.scheduler.abort(uid)

    def reset(self) -> None:
        """Forget every request and cached prefix: back to a known state, wherever a step was interrupted."""
        self._in_flight.clear()
        self._runner.reset()
        self.scheduler.reset()

    def reset_prefix_cache(self) -> None:
        """Forget cached prefixes; sequences that run keep what they have."""
        self.scheduler.kv.pool.forget_all()

    def step(self, on_begin: Callable[[int], None] | None = None) -> StepOutput | None:
        """Launch the next step and commit the oldest one in flight, if it is due; what that one made.

        `on_begin` is called with the number of tokens of a step that is about to be launched.
        """
        plan = self.scheduler.schedule()
        if plan.num_tokens:
            _note_queue_seconds(plan)
            if on_begin is not None:
                on_begin(plan.num_tokens)
            self._in_flight.append(self._runner.launch(plan))
        elif not self._in_flight and self.scheduler.has_work:
            raise HeadraceError("No request can go on, and none is being computed", kind=ErrorKind.INTERNAL)
        if not self._in_flight or (plan.num_tokens and len(self._in_flight) < self._max_in_flight):
            return None
        self._steps += 1
        return self._commit(self._in_flight.popleft())

    def close(self) -> None:
        """Let go of the model and the cache; the engine is of no use afterwards."""
        self._in_flight.clear()
        self._runner.close()

    def stats(self) -> EngineStats:
        """Counters since the start and the present load.

        A request's prompt counts once, with the first token that is made after it; output counts as it is handed out.
        """
        scheduler, kv = self.scheduler, self.scheduler.kv
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting) + scheduler.num_held,
            num_waiting_tokens=scheduler.num_waiting_tokens,
            num_blocks=kv.pool.num_blocks,
            num_free_blocks=kv.pool.num_free,
            prefix_cache_queries=kv.queries,
            prefix_cache_hits=kv.hits,
            num_preemptions=scheduler.num_preemptions,
            prompt_tokens=self._prompt_tokens,
            generation_tokens=self._generation_tokens,
            steps=self._steps,
            num_compilations=self._runner.num_compilations,
        )

    @property
    def load(self) -> tuple[int, int]:
        """How many requests run and wait: cheap enough to be asked every step."""
        return len(self.scheduler.running), len(self.scheduler.waiting)

    def _check(self, message: AddRequest) -> None:
        prompt, output, params = message.prompt_token_ids, message.output_token_ids, message.params
        self.limits.check(prompt, params)
        if output:
            check_continuation(self.limits, prompt, output, params, message.eos_token_ids)

    def _commit(self, step: Step) -> StepOutput:
        tokens, logprobs = step.read()
        plan, output = step.plan, OutputColumns(step.plan.num_tokens)
        for row, tensors in step.prompt_logprobs:
            params = row.request.params
            row.request.prompt_logprobs += tensors.read([params.prompt_logprobs or 0] * len(tensors.tokens))
        singly = self._commit_decodes(plan, tokens[: len(plan.decodes)], logprobs, output)
        for place in singly:
            self._commit_row(plan.decodes[place], int(tokens[place]), logprobs.get(place), output)
        place = len(plan.decodes)
        for row in plan.single:
            if row.samples:
                self._commit_row(row, int(tokens[place]), logprobs.get(place), output)
                place += 1
            else:
                self.scheduler.commit(row, None)
        return output.message()

    def _commit_decodes(
        self, plan: StepPlan, tokens: NDArray[np.int32], logprobs: Mapping[int, TokenLogprobs], output: OutputColumns
    ) -> list[int]:
        """Commit as columns what can be; the places of the others, of which there is more to say."""
        if not len(tokens):
            return []
        taken, uids = self.scheduler.commit_decodes(plan, tokens, [place for place in logprobs if place < len(tokens)])
        self._generation_tokens += len(uids)
        if len(uids) == len(tokens):
            output.add_all(uids, tokens)
            return []
        output.add_all(uids, tokens[taken])
        return np.flatnonzero(~taken).tolist()

    def _commit_row(self, row: PlannedRow, token: int, logprobs: TokenLogprobs | None, output: OutputColumns) -> None:
        """Append a new token to its request, and end the request if that was its last."""
        if not self.scheduler.commit(row, token):
            return
        request = row.request
        if row.known == request.num_given:
            output.first(request)
            self._prompt_tokens += 0 if request.forked else request.num_given
        finish, stop_token = _finish(request, token)
        output.add(request.uid, token, logprobs)
        self._generation_tokens += 1
        if finish != RUNNING:
            output.last(request, finish, stop_token)
            self.scheduler.finish(request)


def _note_queue_seconds(plan: StepPlan) -> None:
    """How long those that begin with this step have waited; a preempted request has begun before."""
    now = time.monotonic() if plan.admitted else 0.0
    for request in plan.admitted:
        if request.queue_seconds is None:
            request.queue_seconds = now - request.arrival


def _finish(request: Request, token: int) -> tuple[int, int]:
    """Why a request ends with this token, if it does; and the stop token that the user named, or -1."""
    length = len(request.tokens)
    if token in request.end_token_ids and length - request.num_prompt >= request.params.min_tokens:
        return STOP, NO_TOKEN if token in request.eos_token_ids else token
    return (LENGTH if length >= request.max_total_tokens else RUNNING), NO_TOKEN
