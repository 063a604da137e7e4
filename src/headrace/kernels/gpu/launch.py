"""A kernel with everything it is launched with: what runs on a device is also what the tests compile without one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from headrace.kernels.gpu.device import GpuTraits

Argument = Tensor | int | float | None
Arguments = dict[str, Argument]


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
        self.kernel[self.grid](**self.arguments, **self.constants, **options)
