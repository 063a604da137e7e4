"""Weights that nobody trained: a model of the right shape and no sense, to measure speed without a weight file.

They are drawn where they will lie, so that a large model is there in seconds on a GPU. Small enough that activations
stay finite however many layers there are.
"""

import zlib
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from headrace.core.errors import HeadraceError
from headrace.kernels.ops import Int4Groups
from headrace.models.checkpoint import TensorInfo, missing_tensor

_STD = 0.02
"""What Hugging Face's models begin their training with."""
_FILE = "the made-up weights"


class DummyCheckpoint:
    """A `Checkpoint` of the tensors of `shapes`: norms are 1, all else is normal with a deviation of 0.02.

    The same `seed` gives the same weights on the same kind of device, whatever the order in which they are read.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
        self._shapes = shapes
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    @property
    def names(self) -> Collection[str]:
        """Names of all tensors."""
        return self._shapes.keys()

    def info(self, name: str) -> TensorInfo:
        """The shape of a tensor, as if a file had it in bfloat16."""
        if name not in self._shapes:
            raise missing_tensor(name, self.names, _FILE)
        return TensorInfo(self._shapes[name], "BF16", _FILE)

    def copy_rows(self, name: str, first: int, target: Tensor) -> None:
        """Draw the rows from `first` on; they depend on where they begin, not on what was drawn before."""
        if name.endswith("norm.weight"):
            target.fill_(1.0)
        else:
            target.normal_(0.0, _STD, generator=self._generator(target.device, f"{name} {first}"))

    def int4_group_size(self, name: str) -> int | None:
        """None: a weight that is made up has no bits of its own."""
        return None

    def copy_groups(self, name: str, first: int, target: Int4Groups) -> None:
        """Never possible, see `int4_group_size`."""
        raise HeadraceError(f"Tensor {name} has no 4-bit groups", fix="Use quantization='int4' to round to them")

    def _generator(self, device: torch.device, place: str) -> torch.Generator:
        generator = self._generators.get(device)
        if generator is None:
            generator = self._generators[device] = torch.Generator(device)
        return generator.manual_seed(zlib.crc32(f"{self._seed} {place}".encode()))
