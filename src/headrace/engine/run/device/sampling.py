"""From logits to tokens on the device, and the tokens' way back to the host."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.engine.request import Request
from headrace.engine.run.device.layout import Ints
from headrace.engine.run.device.mailbox import Mailbox
from headrace.engine.run.device.program import StepProgram
from headrace.engine.run.device.rows import DeviceRows
from headrace.engine.sample.device_sampler import DeviceSampler, StepDetails
from headrace.engine.sched.plan import PlannedRow


class Sampling:
    """Samples for the rows of a step whose pass is launched, and answers it."""

    def __init__(self, sampler: DeviceSampler, program: StepProgram, rows: DeviceRows, mailbox: Mailbox) -> None:
        self._sampler = sampler
        self._program = program
        self._rows = rows
        self._mailbox = mailbox
        self._tokens = torch.zeros_like(rows.last_tokens)

    def admit(self, request: Request) -> None:
        """Take over how a request samples that has just got its row."""
        self._sampler.add(request)
        self._rows.admit(request, self._sampler.params_of(request))

    def is_special(self, rows: NDArray[np.intp], known: Ints) -> bool:
        """Whether any of these rows needs more than `run` does; `known` are the tokens that each has."""
        return self._sampler.is_special(rows, known)

    def run(self, count: int) -> None:
        """One token for each of the first `count` rows that sample."""
        samples, logits = self._program.samples(count), self._program.logits(count)
        params, tokens, last_tokens = self._rows.params, self._tokens[:count], self._rows.last_tokens
        self._sampler.sample(logits, samples.row_ids, samples.positions, params, tokens, last_tokens)
        self._mailbox.hand_out(tokens)

    def details(self, rows: NDArray[np.intp]) -> StepDetails | None:
        """What `run` has told of the tokens of these rows, if one asked; before the next step is launched."""
        return self._sampler.details(rows)

    def run_special(self, planned: Sequence[PlannedRow]) -> StepDetails:
        """The same with everything that a request can ask for, one operation after the other."""
        samples, logits = self._program.samples(len(planned)), self._program.logits(len(planned))
        params, tokens, last_tokens = self._rows.params, self._tokens[: len(planned)], self._rows.last_tokens
        details = self._sampler.sample_special(
            logits, planned, samples.row_ids, samples.positions, params, tokens, last_tokens
        )
        self._mailbox.hand_out(tokens)
        return details
