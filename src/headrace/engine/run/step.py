"""What the engine asks of whatever runs its steps, on whatever device."""

from collections.abc import Sequence
from typing import Protocol

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

    def read(self) -> tuple[dict[int, int], dict[int, TokenLogprobs]]:
        """Wait for it: the new token of each row that makes one, by uid, and logprobs where asked for."""
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
