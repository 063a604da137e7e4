"""An engine without a model: it speaks the wire, says what it is told to say, and fails when it is told to.

As a process (`python -m headrace.testing.fake_engine ADDRESS`) it takes a `Script` as one line of JSON on standard
input, as the real one takes its configuration. Every request gets the script's tokens, one a step, until they end
(then the sequence stops) or `max_tokens` is reached. Its counters move by exactly what happened.
"""

import os
import signal
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from headrace.testing.scripted_sequence import BLOCK_TOKENS, Row, ScriptedSequence
from headrace.wire.channel import WorkerChannel
from headrace.wire.liveness import watch_parent
from headrace.wire.messages import (
    RUNNING,
    AbortRequests,
    AddRequest,
    Command,
    EngineFailed,
    EngineStats,
    Ready,
    RequestFailed,
    Shutdown,
    StepOutput,
)

NUM_BLOCKS = 10_000
STATS_SECONDS = 0.5


class Script(msgspec.Struct, kw_only=True):
    """What the engine says and how it behaves.

    `token_ids` are said to every request; with `echo_prompt`, the prompt's own tokens instead. `end_token_id` is the
    stop token that follows them. Times are in seconds; `prefill_token_seconds` is what each token of a prompt adds to
    the step that starts it. `max_num_seqs` sequences run, the others wait. `preemptions`: so many does each sequence
    report at its end.

    Failures. `fail_request_on`: a prompt that holds this token id is refused. `fail_start`: loading fails with these
    words, and `fail_status` says whose fault it is; `die_while_loading`: the process kills itself instead of becoming
    ready. After so many steps: `die_after_steps`, the process kills itself; `fail_after_steps`, it says that it failed
    and ends; `stall_after_steps`, it begins a step and never moves again. `ignore_shutdown`: being asked to stop
    changes nothing.
    """

    token_ids: list[int] = []
    echo_prompt: bool = False
    end_token_id: int = 2
    step_seconds: float = 0.0
    prefill_token_seconds: float = 0.0
    load_seconds: float = 0.0
    max_model_len: int = 256
    vocab_size: int = 1_000
    max_num_seqs: int = 256
    preemptions: int = 0
    fail_request_on: int | None = None
    fail_start: str | None = None
    fail_status: int = 500
    die_while_loading: bool = False
    die_after_steps: int | None = None
    fail_after_steps: int | None = None
    stall_after_steps: int | None = None
    ignore_shutdown: bool = False


@dataclass(slots=True)
class FakeEngine:
    """The state of one fake engine."""

    script: Script
    running: list[ScriptedSequence] = field(default_factory=list)
    waiting: deque[ScriptedSequence] = field(default_factory=deque)
    stopping: bool = False
    counters: EngineStats = field(default_factory=EngineStats)

    @property
    def has_work(self) -> bool:
        """Whether any sequence runs or waits."""
        return bool(self.running or self.waiting)

    def handle(self, command: Command) -> RequestFailed | None:
        """Take a command; the answer is an event for a request that is refused."""
        match command:
            case AddRequest():
                return self._add(command)
            case AbortRequests(uids=uids):
                self.running = [sequence for sequence in self.running if sequence.uid not in uids]
                self.waiting = deque(sequence for sequence in self.waiting if sequence.uid not in uids)
            case Shutdown():
                self.stopping = not self.script.ignore_shutdown
            case _:
                pass
        return None

    def begin(self) -> int:
        """Let waiting sequences run as far as there is room; the number of tokens that the next step computes."""
        now = time.monotonic()
        while self.waiting and len(self.running) < self.script.max_num_seqs:
            sequence = self.waiting.popleft()
            sequence.queue_seconds = now - sequence.arrival
            self.counters.prefix_cache_queries += sequence.num_given
            self.counters.prefix_cache_hits += sequence.num_cached
            self.running.append(sequence)
        return sum(sequence.num_to_compute for sequence in self.running)

    def seconds(self) -> float:
        """How long the prompts in the step that was begun take."""
        starting = (sequence.num_to_compute for sequence in self.running if not sequence.started)
        return self.script.prefill_token_seconds * sum(starting)

    def step(self) -> StepOutput:
        """One token for each running sequence."""
        first = [sequence for sequence in self.running if not sequence.started]
        num_tokens = sum(sequence.num_to_compute for sequence in self.running)
        rows = [sequence.next_row(self.script.end_token_id) for sequence in self.running]
        ended = [row.sequence for row in rows if row.finish != RUNNING]
        self.running = [row.sequence for row in rows if row.finish == RUNNING]
        self._count(first, rows, ended)
        preempted = ended if self.script.preemptions else []
        prompt_logprobs = {each.uid: found for each in first if (found := each.prompt_logprobs()) is not None}
        return StepOutput(
            uids=array("q", [row.sequence.uid for row in rows]).tobytes(),
            token_ids=array("i", [row.token_id for row in rows]).tobytes(),
            finish=array("b", [row.finish for row in rows]).tobytes(),
            stop_token=array("i", [-1] * len(rows)).tobytes(),
            logprobs=[row.logprobs for row in rows] if any(row.logprobs for row in rows) else None,
            prompt_logprobs=prompt_logprobs,
            cached_tokens={each.uid: each.num_cached for each in first},
            queue_seconds={each.uid: each.queue_seconds for each in first},
            preemptions={each.uid: self.script.preemptions for each in preempted},
            num_tokens=num_tokens,
        )

    def stats(self) -> EngineStats:
        """The counters, and what runs and waits now."""
        used = sum(sequence.num_blocks for sequence in self.running)
        return msgspec.structs.replace(
            self.counters,
            num_running=len(self.running),
            num_waiting=len(self.waiting),
            num_waiting_tokens=sum(sequence.num_given for sequence in self.waiting),
            num_blocks=NUM_BLOCKS,
            num_free_blocks=max(0, NUM_BLOCKS - used),
        )

    def _add(self, request: AddRequest) -> RequestFailed | None:
        if self.script.fail_request_on in request.prompt_token_ids:
            what = f"The prompt holds the token {self.script.fail_request_on}"
            return RequestFailed(request.uids, what, "The script refuses it", "Leave it out", "prompt", 400)
        tokens = request.prompt_token_ids if self.script.echo_prompt else self.script.token_ids
        now = time.monotonic()
        self.waiting += [ScriptedSequence(uid, request, tokens, now) for uid in request.uids]
        return None

    def _count(self, first: list[ScriptedSequence], rows: list[Row], ended: list[ScriptedSequence]) -> None:
        """A request's prompt counts once, with the first of its sequences."""
        counters = self.counters
        counters.steps += 1
        counters.prompt_tokens += sum(each.num_given for each in first if each.uid == each.request.uids[0])
        counters.generation_tokens += len(rows)
        counters.num_preemptions += len(ended) * self.script.preemptions


def serve(channel: WorkerChannel, script: Script) -> int:
    """Play `script` until told to stop; the exit status."""
    time.sleep(script.load_seconds)
    if script.die_while_loading:
        _die(channel)
    if script.fail_start is not None:
        reason = EngineFailed(script.fail_start, "The script says so", "Use another script", status=script.fail_status)
        channel.send(reason)
        return 2
    channel.send(_ready(script))
    engine = FakeEngine(script)
    for _ in _turns(channel, engine):
        if engine.counters.steps == script.die_after_steps:
            _die(channel)
        if engine.counters.steps == script.fail_after_steps:
            channel.send(EngineFailed("A step of the engine failed", "The script says so", "Restart it"))
            return 1
    return 0


def main() -> int:
    """Serve as a process."""
    channel = WorkerChannel(sys.argv[1])
    script = msgspec.json.decode(sys.stdin.buffer.readline(), type=Script)
    watch_parent(lambda: os._exit(0))
    try:
        return serve(channel, script)
    finally:
        channel.close()


def _turns(channel: WorkerChannel, engine: FakeEngine) -> Iterator[None]:
    """Serve, pausing after each turn, until told to stop."""
    teller = _StatsTeller(channel, engine)
    teller.tell()
    while not engine.stopping:
        yield
        if not engine.has_work:
            channel.wait(60.0)
        for command in channel.drain():
            if (failed := engine.handle(command)) is not None:
                channel.send(failed)
        if engine.has_work:
            _step(channel, engine)
        teller.tell()


class _StatsTeller:
    """Sends the counters at first, when sequences came, ended or left, and now and then."""

    def __init__(self, channel: WorkerChannel, engine: FakeEngine) -> None:
        self._channel = channel
        self._engine = engine
        self._told = EngineStats()
        self._told_at = 0.0

    def tell(self) -> None:
        """Send them if they are due."""
        engine, told, now = self._engine, self._told, time.monotonic()
        same_load = (len(engine.running), len(engine.waiting)) == (told.num_running, told.num_waiting)
        if same_load and engine.has_work and now - self._told_at < STATS_SECONDS:
            return
        stats = engine.stats()
        if stats != told:
            self._told, self._told_at = stats, now
            self._channel.send(stats)


def _step(channel: WorkerChannel, engine: FakeEngine) -> None:
    channel.heartbeat.beat(engine.begin())
    while engine.counters.steps == engine.script.stall_after_steps:
        time.sleep(60.0)
    time.sleep(engine.seconds())
    channel.send(engine.step())
    channel.heartbeat.beat()
    time.sleep(engine.script.step_seconds)


def _ready(script: Script) -> Ready:
    return Ready(
        script.max_model_len,
        script.vocab_size,
        [("Engine", "fake")],
        max_num_seqs=script.max_num_seqs,
        cache_config={"block_size": str(BLOCK_TOKENS), "num_gpu_blocks": str(NUM_BLOCKS), "cache_dtype": "auto"},
        startup_seconds={"weights": script.load_seconds},
    )


def _die(channel: WorkerChannel) -> None:
    """End as if killed; what was said before arrives."""
    channel.close()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
