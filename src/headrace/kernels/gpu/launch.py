"""A kernel with everything it is launched with: what runs on a device is also what the tests compile without one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final

from torch import Tensor

from headrace.kernels.gpu.device import GpuTraits

Argument = Tensor | int | float | None
Arguments = dict[str, Argument]

_LAUNCHING: Final = ContextVar("headrace_launching", default=True)


@contextmanager
def launching_nothing() -> Iterator[None]:
    """Within this block, in this thread, `Launch.run` sees to it that the kernel is there and does not launch it."""
    token = _LAUNCHING.set(False)
    try:
        yield
    finally:
        _LAUNCHING.reset(token)


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch. `constants` are compiled in; `num_stages` is how many tiles a loop has in flight."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Argument]
    constants: Mapping[str, int]
    num_warps: int = 4
    num_stages: int = 1
    options: Mapping[str, int] = field(default_factory=dict)

    def early(self) -> "Launch":
        """The same launch, begun while its predecessor still runs: of a kernel that knows when to wait for it."""
        return replace(self, constants={**self.constants, "EARLY": True}, options={**self.options, "launch_pdl": True})

    def run_early(self, traits: GpuTraits) -> None:
        """Launch it on the current stream, before its predecessor is complete where the card can."""
        (self.early() if traits.launches_early else self).run()

    def run(self) -> None:
        """Launch it on the current stream."""
        options = dict(self.options, num_warps=self.num_warps, num_stages=self.num_stages)
        warmup = not _LAUNCHING.get()
        self.kernel.run(grid=self.grid, warmup=warmup, **self.arguments, **self.constants, **options)
