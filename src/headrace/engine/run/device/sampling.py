"""From logits to tokens on the device, and the tokens' way back to the host."""

from collections.abc import Sequence

import torch
from torch import Tensor

from headrace.engine.request import Request
from headrace.engine.run.device.program import StepProgram
from headrace.engine.run.device.queue import DeviceQueue
from headrace.engine.run.device.rows import DeviceRows
from headrace.engine.sample.device_sampler import DeviceSampler, Special
from headrace.engine.sched.plan import PlannedRow


class Sampling:
    """Samples for the rows of a step whose pass is launched. `num_buffers` steps may be unread."""

    def __init__(
        self, sampler: DeviceSampler, program: StepProgram, rows: DeviceRows, queue: DeviceQueue, num_buffers: int
    ) -> None:
        num_rows = len(rows.last_tokens)
        self._sampler = sampler
        self._program = program
        self._rows = rows
        self._tokens = torch.zeros(num_rows, dtype=torch.int32, device=rows.memory.device)
        self._read = [queue.pinned(num_rows) for _ in range(num_buffers)]
        self._turn = 0

    def admit(self, request: Request) -> None:
        """Take over how a request samples that has just got its row."""
        self._sampler.add(request)
        self._rows.admit(request, self._sampler.params_of(request))

    def is_special(self, planned: Sequence[PlannedRow]) -> bool:
        """Whether any of these rows needs more than `run` does."""
        return self._sampler.is_special(planned)

    def run(self, count: int) -> None:
        """One token for each of the first `count` rows that sample."""
        samples = self._program.samples(count)
        logits = self._program.logits(count)
        self._sampler.sample(
            logits, samples.row_ids, samples.positions, self._rows.params, self._tokens[:count], self._rows.last_tokens
        )

    def run_special(self, planned: Sequence[PlannedRow]) -> Special:
        """The same with everything that a request can ask for, one operation after the other."""
        samples = self._program.samples(len(planned))
        logits = self._program.logits(len(planned))
        tokens, last_tokens = self._tokens[: len(planned)], self._rows.last_tokens
        return self._sampler.sample_special(
            logits, planned, samples.row_ids, samples.positions, self._rows.params, tokens, last_tokens
        )

    def send_tokens(self, count: int) -> Tensor:
        """The first `count` tokens, int32 in host memory once the device has come that far."""
        self._turn = (self._turn + 1) % len(self._read)
        host = self._read[self._turn][:count]
        return host.copy_(self._tokens[:count], non_blocking=True)
