"""What the engine asks of whatever runs its steps, on whatever device."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.core.outputs import TokenLogprobs
from headrace.engine.run.prompt_logprobs import RowLogprobs
from headrace.engine.sched.plan import StepPlan


class Step(Protocol):
    """A step that was launched, and may not be done."""

    @property
    def plan(self) -> StepPlan:
        """What it computes."""
        ...

    @property
    def prompt_logprobs(self) -> Sequence[RowLogprobs]:
        """Logprobs of prompt tokens, to be read after `read`."""
        ...

    def read(self) -> tuple[NDArray[np.int32], dict[int, TokenLogprobs]]:
        """Wait for it: the new tokens [S] of the rows that make one, in the plan's order, and logprobs by their place.

        Good until the next step is launched.
        """
        ...


class StepRunner(Protocol):
    """Owns the model, the KV cache and the rows on one device."""

    @property
    def num_compilations(self) -> int:
        """Kernels that were built since the runner was ready: each of them has held up a step."""
        ...

    def launch(self, plan: StepPlan) -> Step:
        """Run a non-empty plan. Returns at once where the device works asynchronously."""
        ...

    def reset(self) -> None:
        """Forget what was told of steps that nobody will read, wherever a launch was interrupted."""
        ...

    def close(self) -> None:
        """Let go of the model and the cache, whoever still holds the runner."""
        ...
