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
from headrace.engine.run.device.layout import Ints
from headrace.engine.run.device.mailbox import Mailbox, StepFacts
from headrace.engine.run.device.program import StepProgram
from headrace.engine.run.device.queue import DeviceQueue, Mark
from headrace.engine.run.device.rows import DeviceRows
from headrace.engine.run.device.sampling import Sampling
from headrace.engine.run.model import LoadedModel
from headrace.engine.run.prompt_logprobs import RowLogprobs, prompt_logprobs
from headrace.engine.sample.device_sampler import StepDetails
from headrace.engine.sample.transfer import upload
from headrace.engine.sched.plan import PlannedRow, StepPlan
from headrace.kernels.gpu.compilations import CompilationCounter
from headrace.kernels.gpu.compile_ahead import compile_ahead

DECODE, PASS, SAMPLE = "decode", "pass", "sample"
"""Captured: decoding rows with their sampling, by rows; a pass of any rows, by tokens; sampling alone, by rows."""


@dataclass(slots=True)
class DeviceStep:
    """A step in flight; it is answered once `done` is passed."""

    plan: StepPlan
    facts: StepFacts
    mailbox: Mailbox
    done: Mark
    details: StepDetails | None
    prompt_logprobs: list[RowLogprobs]

    def read(self) -> tuple[Ints, dict[int, TokenLogprobs]]:
        """Wait for the step: the new token of each sampling row, and logprobs where asked for, by its place."""
        self.done.synchronize()
        return self.mailbox.answer(self.facts), {} if self.details is None else self.details.read_logprobs()


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

        What is not captured, larger steps and copies of blocks, runs once, so that no kernel is missing later. Kernels
        that no earlier process left in Triton's cache are compiled first, all at once.
        """
        works = self._works()
        graphs = Graphs()
        with self._queue.current():
            compile_ahead(partial(self._run_once, list(works.values())), self._facts())
            self._run_once([])
            graphs.capture(works)
            self._mailbox.restart()
        self._graphs = graphs
        self._compilations.count = 0

    def _works(self) -> dict[Key, Work]:
        """What is captured, the largest of each kind first."""
        most = max(self._buckets.rows)
        works: dict[Key, Work] = {}
        for size in reversed(self._buckets.tokens):
            works[PASS, size] = partial(self._pass, size, min(size, most), mixed=True)
        for size in reversed(self._buckets.rows):
            works[DECODE, size] = partial(self._decode, size)
            works[SAMPLE, size] = partial(self._sampling.run, size)
        return works

    def _run_once(self, works: Sequence[Work]) -> None:
        """Everything that is not captured, and `works`."""
        self._pass(self._max_tokens, max(self._buckets.rows), mixed=True)
        self._loaded.copy_blocks(torch.zeros(1, 2, dtype=torch.int64, device=self._queue.device))
        for work in works:
            work()

    def _facts(self) -> str:
        """What decides which kernels the steps consist of: the card, the model, the cache and the sizes of steps."""
        loaded, cache = self._loaded, self._loaded.caches[0].k
        heads = (loaded.heads, cache.shape[1:], cache.dtype)  # not the number of blocks: no kernel knows it
        model = (getattr(loaded.model, "shape", None), loaded.hidden_size, loaded.dtype, loaded.max_model_len)
        return f"{_card(self._queue.device)} {model} {heads} {self._buckets} {self._max_tokens}"

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> DeviceStep:
        """Run a non-empty plan. Returns before the device has."""
        with self._queue.current():
            facts = self._tell(plan)
            if plan.copies:
                self._loaded.copy_blocks(upload(plan.copies, torch.int64, self._queue.device))
            details, logprobs = self._compute(plan, facts)
            return DeviceStep(plan, facts, self._mailbox, self._queue.mark(), details, logprobs)

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
        for row in plan.single:
            self._rows.extend(row.request)
        changes, most = self._rows.take_changes(), self._mailbox.max_pairs
        while len(changes) > most:
            self._mailbox.send_changes(changes[:most])
            self._mailbox.receive(self._rows.memory)
            self._queue.mark().synchronize()  # its place may be written again at once
            changes = changes[most:]
        return self._mailbox.send(plan, changes)

    def _compute(self, plan: StepPlan, facts: StepFacts) -> tuple[StepDetails | None, list[RowLogprobs]]:
        """The pass and the sampling, captured where they can be."""
        special = self._sampling.is_special(facts.sample_rows, facts.sample_known)
        if any(_wants_prompt_logprobs(row) for row in plan.single):
            logprobs = self._prompt_logprobs(plan.rows, self._forward(facts))
            return self._sample(plan, facts, special=special), logprobs
        if special or not facts.decodes or not self._replay(DECODE, self._buckets.for_rows(facts.num_rows)):
            size = self._buckets.for_tokens(facts.num_tokens)
            if size is None or not self._replay(PASS, size):
                self._forward(facts)
            return self._sample(plan, facts, special=special), []
        return self._sampling.details(facts.sample_rows), []

    def _replay(self, kind: str, size: int) -> bool:
        return self._graphs is not None and self._graphs.replay((kind, size))

    def _forward(self, facts: StepFacts) -> Tensor:
        return self._program.forward(facts.num_tokens, facts.query_lens, facts.kv_lens)

    def _sample(self, plan: StepPlan, facts: StepFacts, *, special: bool) -> StepDetails | None:
        count = facts.num_samples
        if special:
            return self._sampling.run_special(plan.sampling)
        if count and not self._replay(SAMPLE, self._buckets.for_rows(count)):
            self._sampling.run(count)
        return self._sampling.details(facts.sample_rows)

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


def _card(device: torch.device) -> str:
    """What kind of card it is; one of the same kind has the same kernels."""
    if device.type != "cuda":
        return device.type
    card = torch.cuda.get_device_properties(device)
    return f"{card.name} {card.major}.{card.minor} {card.multi_processor_count}"


def _wants_prompt_logprobs(row: PlannedRow) -> bool:
    """Whether the step computes a position whose next token is of a prompt that is to be told with logprobs."""
    request = row.request
    return request.params.prompt_logprobs is not None and row.start < request.num_prompt - 1
