"""Launches planned steps: one forward pass over one flat axis of tokens, then sampling, with no host read between."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.core.outputs import TokenLogprobs
from headrace.engine.run.model import LoadedModel
from headrace.engine.run.prompt_logprobs import RowLogprobs, prompt_logprobs
from headrace.engine.run.rows import Rows
from headrace.engine.sample.sampler import Sampled, Sampler
from headrace.engine.sched.plan import PlannedRow, StepPlan
from headrace.kernels.batch import make_step_batch
from headrace.kernels.ops import StepBatch

UNREAD = -1


@dataclass(slots=True)
class LaunchedStep:
    """A step in flight: the tokens to come of the rows that it samples for, and logprobs of prompts."""

    plan: StepPlan
    sampled: Sampled | None
    prompt_logprobs: list[RowLogprobs] = field(default_factory=list)

    def read(self) -> tuple[NDArray[np.int32], dict[int, TokenLogprobs]]:
        """Wait for the step: the new token of each sampling row, and logprobs where asked for, by its place."""
        if self.sampled is None:
            return np.empty(0, np.int32), {}
        tokens, logprobs = self.sampled.read()
        return np.array(tokens, np.int32), logprobs


class Runner:
    """Owns the model, the KV cache and the rows on one device."""

    num_compilations = 0

    def __init__(self, loaded: LoadedModel, rows: Rows, sampler: Sampler) -> None:
        self._loaded = loaded
        self._rows = rows
        self._sampler = sampler
        self._device = loaded.device

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> LaunchedStep:
        """Run a non-empty plan. Returns at once where the device works asynchronously."""
        for request in plan.admitted:
            self._sampler.add(request)
        if plan.copies:
            self._loaded.copy_blocks(torch.tensor(plan.copies, device=self._device))
        hidden = self._loaded.model.forward(self._token_ids(plan), self._batch(plan), self._loaded.caches)
        ends = np.cumsum([row.count for row in plan.rows])
        sampling = [(row, end - 1) for row, end in zip(plan.rows, ends, strict=True) if row.samples]
        logprobs = [
            part
            for row, end in zip(plan.rows, ends, strict=True)
            for part in prompt_logprobs(self._loaded.model, row, hidden[end - row.count : end])
        ]
        return LaunchedStep(plan, self._sample(hidden, sampling), logprobs)

    def reset(self) -> None:
        """Nothing is kept of a step."""

    def close(self) -> None:
        """Let go of the model and the cache, whoever still holds the runner."""
        del self._loaded, self._sampler, self._rows

    def _sample(self, hidden: Tensor, sampling: list[tuple[PlannedRow, int]]) -> Sampled | None:
        if not sampling:
            return None
        at = torch.tensor([index for _, index in sampling], device=self._device)
        rows = [row for row, _ in sampling]
        logits = self._loaded.model.logits(hidden if len(rows) == len(hidden) else hidden[at]).float()
        sampled = self._sampler.sample(logits, rows)
        row_ids = torch.tensor([row.request.row for row in rows], device=self._device)
        self._rows.last_tokens[row_ids] = sampled.tokens
        return sampled

    def _batch(self, plan: StepPlan) -> StepBatch:
        for planned in plan.single:
            self._rows.sync(planned.request)
        columns = plan.columns()
        tables = self._rows.block_tables(columns.row_ids, -(-int(columns.ends.max()) // self._loaded.block_size))
        return make_step_batch(columns.counts, columns.ends, tables, self._loaded.block_size, self._device)

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
