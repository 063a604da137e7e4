"""An engine without a model: it speaks the wire, says what it is told to say, and fails when it is told to.

As a process (`python -m headrace.testing.fake_engine COMMANDS EVENTS`) it takes a `Script` as one line of JSON on
standard input, as the real one takes its configuration. Every request gets the script's tokens, one a step, until
they end (then the sequence stops) or `max_tokens` is reached.
"""

import os
import signal
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from headrace.core.outputs import Logprob, TokenLogprobs
from headrace.wire.channel import WorkerChannel
from headrace.wire.liveness import watch_parent
from headrace.wire.messages import (
    LENGTH,
    RUNNING,
    STOP,
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


class Script(msgspec.Struct, kw_only=True):
    """What the engine says and how it behaves.

    `token_ids` are said to every request; with `echo_prompt`, the prompt's own tokens instead. `end_token_id` is the
    stop token that follows them. Times are in seconds. `fail_request_on`: a prompt that holds this token id is
    refused. `fail_start`: loading fails with these words, and `fail_status` says whose fault it is. `die_after_steps`:
    the process kills itself.
    """

    token_ids: list[int] = []
    echo_prompt: bool = False
    end_token_id: int = 2
    step_seconds: float = 0.0
    load_seconds: float = 0.0
    max_model_len: int = 256
    vocab_size: int = 1_000
    fail_request_on: int | None = None
    fail_start: str | None = None
    fail_status: int = 500
    die_after_steps: int | None = None


@dataclass(slots=True)
class _Sequence:
    uid: int
    request: AddRequest
    tokens: Sequence[int]
    position: int = 0


@dataclass(slots=True)
class _Row:
    uid: int
    token_id: int
    finish: int
    stop_token: int
    logprobs: TokenLogprobs | None


@dataclass(slots=True)
class FakeEngine:
    """The state of one fake engine."""

    script: Script
    running: list[_Sequence] = field(default_factory=list)
    steps: int = 0
    stopping: bool = False

    def handle(self, command: Command) -> RequestFailed | None:
        """Take a command; the answer is an event for a request that is refused."""
        match command:
            case AddRequest():
                return self._add(command)
            case AbortRequests(uids=uids):
                self.running = [sequence for sequence in self.running if sequence.uid not in uids]
            case Shutdown():
                self.stopping = True
            case _:
                pass
        return None

    def step(self) -> StepOutput:
        """One token for each running sequence."""
        self.steps += 1
        rows = [_next_row(sequence, self.script.end_token_id) for sequence in self.running]
        first = [sequence for sequence in self.running if sequence.position == 1]
        ended = {row.uid for row in rows if row.finish != RUNNING}
        self.running = [sequence for sequence in self.running if sequence.uid not in ended]
        return StepOutput(
            uids=array("q", [row.uid for row in rows]).tobytes(),
            token_ids=array("i", [row.token_id for row in rows]).tobytes(),
            finish=array("b", [row.finish for row in rows]).tobytes(),
            stop_token=array("i", [row.stop_token for row in rows]).tobytes(),
            logprobs=[row.logprobs for row in rows] if any(row.logprobs for row in rows) else None,
            prompt_logprobs={each.uid: _prompt_logprobs(each.request) for each in first if _wants_prompt(each)},
            cached_tokens={each.uid: len(each.request.prompt_token_ids) // 2 for each in first},
        )

    def stats(self) -> EngineStats:
        """How many sequences run."""
        return EngineStats(num_running=len(self.running), steps=self.steps)

    def _add(self, request: AddRequest) -> RequestFailed | None:
        if self.script.fail_request_on in request.prompt_token_ids:
            what = f"The prompt holds the token {self.script.fail_request_on}"
            return RequestFailed(request.uids, what, "The script refuses it", "Leave it out", "prompt", 400)
        tokens = request.prompt_token_ids if self.script.echo_prompt else self.script.token_ids
        self.running += [_Sequence(uid, request, tokens) for uid in request.uids]
        return None


def serve(channel: WorkerChannel, script: Script) -> int:
    """Play `script` until told to stop; the exit status."""
    time.sleep(script.load_seconds)
    if script.fail_start is not None:
        reason = EngineFailed(script.fail_start, "The script says so", "Use another script", status=script.fail_status)
        channel.send(reason)
        return 2
    engine = FakeEngine(script)
    channel.send(Ready(script.max_model_len, script.vocab_size, [("Engine", "fake")]))
    while not engine.stopping:
        if not engine.running:
            channel.wait(60.0)
        for command in channel.drain():
            if (failed := engine.handle(command)) is not None:
                channel.send(failed)
            channel.send(engine.stats())
        if engine.running:
            channel.send(engine.step())
            time.sleep(script.step_seconds)
        if engine.steps == script.die_after_steps:
            channel.close()  # what was made so far arrives
            os.kill(os.getpid(), signal.SIGKILL)
    return 0


def main() -> int:
    """Serve as a process."""
    channel = WorkerChannel(*sys.argv[1:3])
    script = msgspec.json.decode(sys.stdin.buffer.readline(), type=Script)
    watch_parent(lambda: os._exit(0))
    try:
        return serve(channel, script)
    finally:
        channel.close()


def _next_row(sequence: _Sequence, end_token_id: int) -> _Row:
    params, position = sequence.request.params, sequence.position
    sequence.position += 1
    token_id = sequence.tokens[position] if position < len(sequence.tokens) else end_token_id
    logprobs = _logprobs(token_id, params.logprobs)
    if position >= len(sequence.tokens) and not params.ignore_eos:
        return _Row(sequence.uid, end_token_id, STOP, -1, logprobs)
    finish = LENGTH if sequence.position == params.max_tokens else RUNNING
    return _Row(sequence.uid, token_id, finish, -1, logprobs)


def _wants_prompt(sequence: _Sequence) -> bool:
    return sequence.request.params.prompt_logprobs is not None


def _prompt_logprobs(request: AddRequest) -> list[TokenLogprobs | None]:
    count = request.params.prompt_logprobs
    return [None, *(_logprobs(token_id, count) for token_id in request.prompt_token_ids[1:])]


def _logprobs(token_id: int, count: int | None) -> TokenLogprobs | None:
    """The said token is the likeliest; the alternatives are the ids after it."""
    if count is None:
        return None
    return {token_id + rank: Logprob(-0.5 * (rank + 1), rank + 1) for rank in range(max(count, 1))}


if __name__ == "__main__":
    sys.exit(main())
