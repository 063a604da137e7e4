"""Launches planned steps on a GPU without waiting for it: a message, a captured pass, a captured sampling."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from headrace.core.outputs import TokenLogprobs
from headrace.engine.run.device.buckets import Buckets
from headrace.engine.run.device.graphs import Graphs, Key, Work
from headrace.engine.run.device.mailbox import Mailbox, StepFacts
from headrace.engine.run.device.program import StepProgram
from headrace.engine.run.device.queue import DeviceQueue, Mark
from headrace.engine.run.device.rows import DeviceRows
from headrace.engine.run.device.sampling import Sampling
from headrace.engine.run.model import LoadedModel
from headrace.engine.run.prompt_logprobs import RowLogprobs, prompt_logprobs
from headrace.engine.sample.device_sampler import Special
from headrace.engine.sample.transfer import upload
from headrace.engine.sched.plan import PlannedRow, StepPlan
from headrace.kernels.gpu.compilations import CompilationCounter

DECODE, PASS, SAMPLE = "decode", "pass", "sample"
"""Captured: decoding rows with their sampling, by rows; a pass of any rows, by tokens; sampling alone, by rows."""


@dataclass(slots=True)
class DeviceStep:
    """A step in flight; it is answered once `done` is passed."""

    plan: StepPlan
    facts: StepFacts
    mailbox: Mailbox
    done: Mark
    special: Special | None
    prompt_logprobs: list[RowLogprobs]

    def read(self) -> tuple[dict[int, int], dict[int, TokenLogprobs]]:
        """Wait for the step: the new token of each sampling row by uid, and logprobs where asked for."""
        self.done.synchronize()
        uids = [row.request.uid for row in self.facts.sampling]
        tokens = dict(zip(uids, self.mailbox.answer(self.facts), strict=True))
        if self.special is None:
            return tokens, {}
        return tokens, {uids[i]: entry for i, entry in self.special.read_logprobs().items()}


class DeviceRunner:
    """Owns the model, the KV cache and the rows on one GPU."""

    def __init__(
        self,
        loaded: LoadedModel,
        rows: DeviceRows,
        program: StepProgram,
        sampling: Sampling,
        mailbox: Mailbox,
        queue: DeviceQueue,
        buckets: Buckets,
        max_tokens: int,
    ) -> None:
        self._loaded = loaded
        self._rows = rows
        self._program = program
        self._sampling = sampling
        self._mailbox = mailbox
        self._queue = queue
        self._buckets = buckets
        self._max_tokens = max_tokens
        self._graphs: Graphs | None = None
        self._compilations = CompilationCounter()

    @torch.inference_mode()
    def capture(self) -> None:
        """Record every size of step, the largest first. Until then steps run kernel by kernel.

        What is not captured, larger steps and copies of blocks, runs once, so that no kernel is missing later.
        """
        most = max(self._buckets.rows)
        works: dict[Key, Work] = {}
        for size in reversed(self._buckets.tokens):
            works[PASS, size] = partial(self._pass, size, min(size, most), mixed=True)
        for size in reversed(self._buckets.rows):
            works[DECODE, size] = partial(self._decode, size)
            works[SAMPLE, size] = partial(self._sampling.run, size)
        graphs = Graphs()
        with self._queue.current():
            self._pass(self._max_tokens, most, mixed=True)
            self._loaded.copy_blocks(torch.zeros(1, 2, dtype=torch.int64, device=self._queue.device))
            graphs.capture(works)
            self._mailbox.restart()
        self._graphs = graphs
        self._compilations.count = 0

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> DeviceStep:
        """Run a non-empty plan. Returns before the device has."""
        with self._queue.current():
            facts = self._tell(plan)
            if plan.copies:
                self._loaded.copy_blocks(upload(plan.copies, torch.int64, self._queue.device))
            special, logprobs = self._compute(plan, facts)
            return DeviceStep(plan, facts, self._mailbox, self._queue.mark(), special, logprobs)

    def reset(self) -> None:
        """Forget what was told of steps that nobody will read, wherever a launch was interrupted."""
        with self._queue.current():
            self._queue.mark().synchronize()
            self._mailbox.restart()
        self._rows.forget_changes()

    @property
    def num_compilations(self) -> int:
        """Kernels that were built since `capture`, or since the beginning without it."""
        return self._compilations.count

    def close(self) -> None:
        """Let go of the model, the cache and the graphs, whoever still holds the runner."""
        self._compilations.close()
        with suppress(RuntimeError), self._queue.current():  # a device that failed is waited for in vain
            self._queue.mark().synchronize()
        del self._loaded, self._program, self._sampling, self._rows, self._mailbox, self._graphs

    def _tell(self, plan: StepPlan) -> StepFacts:
        for request in plan.admitted:
            self._sampling.admit(request)
        for row in plan.rows:
            self._rows.extend(row.request)
        changes, most = self._rows.take_changes(), self._mailbox.max_pairs
        while len(changes) > most:
            self._mailbox.send_changes(changes[:most])
            self._mailbox.receive(self._rows.memory)
            self._queue.mark().synchronize()  # its place may be written again at once
            changes = changes[most:]
        return self._mailbox.send(plan.rows, changes)

    def _compute(self, plan: StepPlan, facts: StepFacts) -> tuple[Special | None, list[RowLogprobs]]:
        """The pass and the sampling, captured where they can be."""
        special = self._sampling.is_special(facts.sampling)
        if any(_wants_prompt_logprobs(row) for row in plan.rows):
            logprobs = self._prompt_logprobs(plan.rows, self._forward(facts))
            return self._sample(facts, special=special), logprobs
        if special or not facts.decodes or not self._replay(DECODE, self._buckets.for_rows(facts.num_rows)):
            size = self._buckets.for_tokens(facts.num_tokens)
            if size is None or not self._replay(PASS, size):
                self._forward(facts)
            return self._sample(facts, special=special), []
        return None, []

    def _replay(self, kind: str, size: int) -> bool:
        return self._graphs is not None and self._graphs.replay((kind, size))

    def _forward(self, facts: StepFacts) -> Tensor:
        return self._program.forward(facts.num_tokens, facts.query_lens, facts.kv_lens)

    def _sample(self, facts: StepFacts, *, special: bool) -> Special | None:
        count = len(facts.sampling)
        if special:
            return self._sampling.run_special(facts.sampling)
        if count and not self._replay(SAMPLE, self._buckets.for_rows(count)):
            self._sampling.run(count)
        return None

    def _decode(self, num_rows: int) -> None:
        self._pass(num_rows, num_rows, mixed=False)
        self._sampling.run(num_rows)

    def _pass(self, num_tokens: int, num_rows: int, *, mixed: bool) -> None:
        """The pass as it is captured: each row as long as can be, and adding one token, or some of them several."""
        query_lens = np.ones(num_rows, np.int32)
        if mixed:
            query_lens[0] = num_tokens
        self._program.forward(num_tokens, query_lens, np.full(num_rows, self._loaded.max_model_len, np.int32))

    def _prompt_logprobs(self, rows: Sequence[PlannedRow], hidden: Tensor) -> list[RowLogprobs]:
        found: list[RowLogprobs] = []
        begin = 0
        for row in rows:
            part = hidden[begin : begin + row.count]
            found += prompt_logprobs(self._loaded.model, row, part)
            begin += row.count
        return found


def _wants_prompt_logprobs(row: PlannedRow) -> bool:
    """Whether the step computes a position whose next token is of a prompt that is to be told with logprobs."""
    request = row.request
    return request.params.prompt_logprobs is not None and row.start < request.num_prompt - 1
