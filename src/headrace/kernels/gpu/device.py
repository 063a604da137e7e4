"""What the choice of tiles depends on: the card's generation, its multiprocessors and its shared memory."""

from dataclasses import dataclass

import torch

from headrace.core.errors import HeadraceError

OLDEST = (7, 5)
"""The first compute capability with the matrix instructions that the kernels use."""

_SHARED_KIB = {(7, 5): 64, (8, 0): 163, (8, 6): 99, (8, 7): 163, (8, 9): 99, (9, 0): 227, (10, 0): 227, (10, 3): 227}
_LEAST_SHARED_KIB = 99
"""Of every card after sm_75."""


@dataclass(frozen=True, slots=True)
class GpuTraits:
    """A kind of card. `capability` as torch gives it: (9, 0) is sm_90."""

    capability: tuple[int, int]
    num_multiprocessors: int

    @property
    def shared_bytes(self) -> int:
        """Shared memory that one program may use."""
        return _SHARED_KIB.get(self.capability, _LEAST_SHARED_KIB) << 10

    @property
    def copies_asynchronously(self) -> bool:
        """Whether loads can go straight to shared memory while the program computes (sm_80 and later)."""
        return self.capability >= (8, 0)

    @property
    def multiplies_by_warpgroup(self) -> bool:
        """Whether four warps can share one large matrix instruction (wgmma: sm_90 only)."""
        return self.capability == (9, 0)

    @property
    def launches_early(self) -> bool:
        """Whether a kernel can begin before its predecessor is complete (programmatic dependent launch)."""
        return self.capability >= (9, 0)


def traits_of(device: torch.device) -> GpuTraits:
    """The traits of a CUDA device. Raises `HeadraceError` if it is too old."""
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    if capability < OLDEST:
        raise HeadraceError(
            f"{properties.name} has compute capability {capability[0]}.{capability[1]}",
            rule=f"The kernels need {OLDEST[0]}.{OLDEST[1]} (T4, RTX 20) or newer",
            fix="Use a newer GPU, or device='cpu'",
            param="device",
        )
    return GpuTraits(capability, properties.multi_processor_count)
