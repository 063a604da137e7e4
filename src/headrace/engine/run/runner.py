"""Launches planned steps: one forward pass over one flat axis of tokens, then sampling, with no host read between."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from headrace.core.outputs import TokenLogprobs
from headrace.engine.run.rows import Rows
from headrace.engine.sample.logprobs import CHUNK_ROWS, LogprobTensors, compute_logprobs
from headrace.engine.sample.sampler import Sampled, Sampler
from headrace.engine.sched.plan import PlannedRow, StepPlan
from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import LayerCache, Ops, StepBatch

UNREAD = -1


class Model(Protocol):
    """What the runner needs of a model."""

    def forward(self, token_ids: Tensor, batch: StepBatch, caches: Sequence[LayerCache]) -> Tensor:
        """Token ids [T] to hidden states [T, H]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [R, H] to float32 logits [R, V]."""
        ...


@dataclass(slots=True)
class LaunchedStep:
    """A step in flight: the rows that it samples for, their tokens to come, and prompt logprobs by uid."""

    plan: StepPlan
    sampling: list[PlannedRow]
    sampled: Sampled | None
    prompt_logprobs: list[tuple[PlannedRow, LogprobTensors]] = field(default_factory=list)

    def read(self) -> tuple[dict[int, int], dict[int, TokenLogprobs]]:
        """Wait for the step: the new token of each sampling row by uid, and logprobs where asked for."""
        if self.sampled is None:
            return {}, {}
        tokens, logprobs = self.sampled.read()
        uids = [row.request.uid for row in self.sampling]
        return dict(zip(uids, tokens, strict=True)), {uids[i]: entry for i, entry in logprobs.items()}


class Runner:
    """Owns the model, the KV cache and the rows on one device."""

    def __init__(
        self, model: Model, ops: Ops, caches: list[LayerCache], rows: Rows, sampler: Sampler, device: torch.device
    ) -> None:
        self._model = model
        self._ops = ops
        self._caches = caches
        self._rows = rows
        self._sampler = sampler
        self._device = device
        self._block_size = caches[0].k.shape[2]

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> LaunchedStep:
        """Run a non-empty plan. Returns at once where the device works asynchronously."""
        for request in plan.admitted:
            self._sampler.add(request)
        self._copy_blocks(plan.copies)
        hidden = self._model.forward(self._token_ids(plan), self._batch(plan), self._caches)
        ends = np.cumsum([row.count for row in plan.rows])
        sampling = [(row, end - 1) for row, end in zip(plan.rows, ends, strict=True) if row.samples]
        prompt_logprobs = [
            (row, logprobs)
            for row, end in zip(plan.rows, ends, strict=True)
            if row.request.params.prompt_logprobs is not None
            for logprobs in self._prompt_logprobs(row, hidden[end - row.count : end])
        ]
        rows = [row for row, _ in sampling]
        return LaunchedStep(plan, rows, self._sample(hidden, sampling), prompt_logprobs)

    def close(self) -> None:
        """Let go of the model and the cache, whoever still holds the runner."""
        del self._model, self._caches, self._sampler, self._rows

    def _sample(self, hidden: Tensor, sampling: list[tuple[PlannedRow, int]]) -> Sampled | None:
        if not sampling:
            return None
        at = torch.tensor([index for _, index in sampling], device=self._device)
        rows = [row for row, _ in sampling]
        logits = self._model.logits(hidden if len(rows) == len(hidden) else hidden[at])
        sampled = self._sampler.sample(logits, rows)
        row_ids = torch.tensor([row.request.row for row in rows], device=self._device)
        self._rows.last_tokens[row_ids] = sampled.tokens
        return sampled

    def _batch(self, plan: StepPlan) -> StepBatch:
        size = len(plan.rows)
        for planned in plan.rows:
            self._rows.sync(planned.request)
        counts = np.fromiter((row.count for row in plan.rows), np.int32, size)
        ends = np.fromiter((row.end for row in plan.rows), np.int32, size)
        rows = np.fromiter((row.request.row for row in plan.rows), np.int64, size)
        tables = self._rows.block_tables(rows, -(-int(ends.max()) // self._block_size))
        return make_step_batch(counts, ends, tables, self._block_size, self._device)

    def _token_ids(self, plan: StepPlan) -> Tensor:
        """The tokens of all rows, one after another; those that the host has not read come from the device."""
        known: list[int] = []
        unread: list[tuple[int, int]] = []
        for row in plan.rows:
            known += row.request.tokens[row.start : row.end]
            if row.end > len(row.request.tokens):
                unread.append((len(known), row.request.row))
                known.append(UNREAD)
        tokens = torch.tensor(known, device=self._device)
        if unread:
            at, rows = torch.tensor(unread, device=self._device).unbind(1)
            tokens[at] = self._rows.last_tokens[rows]
        return tokens

    def _copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        if copies:
            source, target = torch.tensor(copies, device=self._device).unbind(1)
            for cache in self._caches:
                self._ops.copy_blocks(cache, source, target)

    def _prompt_logprobs(self, row: PlannedRow, hidden: Tensor) -> list[LogprobTensors]:
        """Logprobs of the prompt tokens that follow the row's positions, a bounded number of logits at a time."""
        request = row.request
        first, last = max(row.start, len(request.prompt_logprobs) - 1), min(row.end, request.num_prompt - 1)
        parts = []
        for begin in range(first, last, CHUNK_ROWS):
            end = min(begin + CHUNK_ROWS, last)
            targets = torch.tensor(request.tokens[begin + 1 : end + 1], device=self._device)
            logits = self._model.logits(hidden[begin - row.start : end - row.start])
            parts.append(compute_logprobs(logits, targets, request.params.prompt_logprobs or 0))
        return parts
