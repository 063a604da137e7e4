"""An engine in simulated time behind the real admission: requests come at random, prompts and slots hold them up."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

from headrace.core.sampling_params import SamplingParams
from headrace.server.admission import Admission
from headrace.server.errors import ApiError
from headrace.server.metrics import ServerMetrics
from headrace.server.options import ServerOptions
from headrace.wire.messages import AddRequest, StepOutput


@dataclass(frozen=True)
class Machine:
    """Prompts are computed one after the other; up to `slots` answers then run, `token_seconds` a token each."""

    prompt_tokens_per_second: float
    token_seconds: float
    slots: int
    step_tokens: int = 2_048


@dataclass(frozen=True)
class Traffic:
    """Poisson arrivals of requests with so many tokens; `max_tokens` is what they ask for, `output` what they get."""

    per_second: float
    prompt: int
    output: int
    max_tokens: int | None = None


@dataclass
class Simulation:
    """`run` it; then see how long each admitted request waited, how many were refused and how busy the machine was."""

    machine: Machine
    traffic: Traffic
    options: ServerOptions = field(default_factory=ServerOptions)
    waits: list[float] = field(default_factory=list)
    retry_after: list[int] = field(default_factory=list)
    idle_seconds: float = 0.0
    now: float = 0.0

    def run(self, seconds: float) -> "Simulation":
        """Arrivals for so long; what was admitted is then worked off."""
        self._random = random.Random(7)
        self._events: list[tuple[float, int, str, int]] = []
        self._queue: deque[int] = deque()
        self._arrived: dict[int, float] = {}
        self._free, self._busy_until, self._uid = self.machine.slots, 0.0, 0
        self._admission = Admission(self.options, ServerMetrics(), clock=lambda: self.now)
        self._admission.start_engine(self.machine.step_tokens)
        self._tickets: dict[int, object] = {}
        self._schedule(0.0, "arrive")
        while self._events:
            self.now, _, kind, uid = heapq.heappop(self._events)
            if kind == "arrive" and self.now < seconds:
                self._arrive()
                self._schedule(self._random.expovariate(self.traffic.per_second), "arrive")
            elif kind == "first":
                self._first(uid)
            elif kind == "end":
                self._end(uid)
        return self

    def _schedule(self, delay: float, kind: str, uid: int = 0) -> None:
        heapq.heappush(self._events, (self.now + delay, len(self._events) + self._uid, kind, uid))

    def _arrive(self) -> None:
        self._uid += 1
        params = SamplingParams(max_tokens=self.traffic.max_tokens)
        try:
            self._admission.check()
            ticket = self._admission.reserve(4 * self.traffic.prompt)
            add = AddRequest([self._uid], [1] * self.traffic.prompt, params)
            self._admission.correct(ticket, [add])
        except ApiError as error:
            self.retry_after.append(int(error.headers["Retry-After"]))
            return
        self._tickets[self._uid] = ticket
        self._arrived[self._uid] = self.now
        self._queue.append(self._uid)
        self._start()

    def _start(self) -> None:
        if self._queue and self._free and self._busy_until <= self.now:
            self.idle_seconds += self.now - self._busy_until if self._free == self.machine.slots else 0.0
            self._free -= 1
            seconds = self.traffic.prompt / self.machine.prompt_tokens_per_second
            self._busy_until = self.now + seconds
            self._schedule(seconds, "first", self._queue.popleft())

    def _first(self, uid: int) -> None:
        self.waits.append(self.now - self._arrived[uid])
        self._admission.on_step(StepOutput(b"", b"", b"", b"", queue_seconds={uid: 0.0}))
        self._schedule(self.traffic.output * self.machine.token_seconds, "end", uid)
        self._start()

    def _end(self, uid: int) -> None:
        self._free += 1
        self._admission.learn(1, self.traffic.output)
        self._tickets.pop(uid).__exit__()
        self._start()
