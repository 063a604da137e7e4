"""What a checkpoint gives the loader, whatever its format: tensors by their Hugging Face names, some rows at a time.

Reading by rows keeps the memory that loading needs small, and lets two threads share one large tensor.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from headrace.core.errors import HeadraceError
from headrace.kernels.ops import Int4Groups


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the file has it: `type_name` is the format's own ("BF16", "Q4_1"); `file` names where it lies."""

    shape: tuple[int, ...]
    type_name: str
    file: str


class Checkpoint(Protocol):
    """Weights on disk, mapped into memory. Pages that were read are given back at once."""

    @property
    def names(self) -> Collection[str]:
        """Names of all tensors, as Hugging Face's models spell them."""
        ...

    def info(self, name: str) -> TensorInfo:
        """What the file says about a tensor. Raises `HeadraceError` if there is none of that name."""
        ...

    def copy_rows(self, name: str, first: int, target: Tensor) -> None:
        """Fill `target` with as many rows (of the first axis) from row `first` on, in the dtype of `target`."""
        ...

    def int4_group_size(self, name: str) -> int | None:
        """How many weights share a scale if the file keeps them as 4-bit groups, else None."""
        ...

    def copy_groups(self, name: str, first: int, target: Int4Groups) -> None:
        """Fill `target` with the file's own bits, from row `first` on."""
        ...


def missing_tensor(name: str, names: Collection[str], file: str) -> HeadraceError:
    """The error for a tensor that the model needs and the checkpoint does not have."""
    return HeadraceError(
        f"{file} has no tensor {name}",
        rule=f"The model's config asks for it; the checkpoint has {len(names)} tensors",
        fix="Download the checkpoint again, or use the config.json that belongs to it",
        param="model",
    )
