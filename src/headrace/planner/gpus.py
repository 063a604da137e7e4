"""GPUs as data: the memory that is reported, not the one on the box, bandwidth, speed, and what each cannot do."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from headrace.core.errors import ErrorKind, HeadraceError
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.memory import GIB

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU. `memory_mib` is what the cloud reports, `usable_gib` the total that CUDA offers a process.

    `bandwidth_gbs` in 1e9 bytes a second; `tflops_16` and `tflops_8` dense, 0 where it has none. `capability` is
    CUDA's compute capability, or AMD's architecture.
    """

    name: str
    aliases: tuple[str, ...]
    memory_mib: int
    usable_gib: float
    bandwidth_gbs: float
    tflops_16: float
    tflops_8: float
    capability: str
    largest_group: int
    note: str

    @property
    def usable_bytes(self) -> int:
        """What a process may take at most."""
        return int(self.usable_gib * GIB)

    @property
    def memory(self) -> DeviceMemory:
        """All of it, with nobody else on the GPU."""
        return DeviceMemory("cuda", self.usable_bytes)

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16."""
        return not self._is_nvidia or self._version >= (8, 0)

    @property
    def has_fp8(self) -> bool:
        """Whether it multiplies 8-bit floats."""
        return self.tflops_8 > 0

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do, as advice."""
        limits = []
        if not self.has_bfloat16:
            limits.append(f"{self.name} has no bfloat16: --dtype float16")
            limits.append(f"{self.name} has no FlashAttention-2 (needs 8.0, it has {self.capability})")
        if not self.has_fp8:
            limits.append(f"{self.name} does not compute in fp8 (needs 8.9, it has {self.capability})")
        return (*limits, *([self.note] if self.note else []))

    @property
    def _is_nvidia(self) -> bool:
        return self.capability[0].isdigit()

    @property
    def _version(self) -> tuple[int, int]:
        major, _, minor = self.capability.partition(".")
        return int(major), int(minor)


@cache
def known_gpus() -> tuple[Gpu, ...]:
    """All GPUs, smallest memory first."""
    text = (files("headrace.planner") / "data" / "gpus.json").read_text()
    gpus = [Gpu(**{**entry, "aliases": tuple(entry["aliases"])}) for entry in json.loads(text)["gpus"]]
    return tuple(sorted(gpus, key=lambda gpu: gpu.usable_gib))


def find_gpu(name: str) -> Gpu:
    """The GPU of a name in any case, with or without hyphens. Raises `HeadraceError` if it is not known."""
    wanted = _plain(name)
    for gpu in known_gpus():
        if wanted in (_plain(known) for known in (gpu.name, *gpu.aliases)):
            return gpu
    raise HeadraceError(
        f"The GPU {name!r} is not known",
        rule=f"Known are {', '.join(gpu.name for gpu in known_gpus())}",
        fix="Name one of these; one with as much memory plans alike",
        param="gpu",
        kind=ErrorKind.NOT_FOUND,
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
