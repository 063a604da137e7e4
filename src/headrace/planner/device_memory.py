"""What a device has of memory before a model comes, and who holds some of it already."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of a GPU, or what a CPU's host has free. All sizes in bytes.

    `total_bytes` is the total that CUDA reports, or the host's memory that is available. `others_bytes` is what other
    processes hold of it and `pids` who they are, where the driver says so; `own_bytes` what this process's tensors do,
    and `own_models` the models among them whose engines are not closed.
    """

    kind: Literal["cuda", "cpu"]
    total_bytes: int
    others_bytes: int = 0
    own_bytes: int = 0
    pids: tuple[int, ...] = ()
    own_models: tuple[str, ...] = ()

    @property
    def on_cpu(self) -> bool:
        """Whether this is a host's memory."""
        return self.kind == "cpu"

    @property
    def alone(self) -> "DeviceMemory":
        """The same device without other processes."""
        return replace(self, others_bytes=0, pids=())

    @property
    def without_own(self) -> "DeviceMemory":
        """The same device once this process has given back what it holds."""
        return replace(self, own_bytes=0, own_models=())

    def allowed_bytes(self, share: float) -> int:
        """What may be used: a share of a GPU (--gpu-memory-utilization), or all that a host has free."""
        return self.total_bytes if self.on_cpu else int(self.total_bytes * share)
