"""The weights of a model as matrices: what counts parameters, and what a format of weights is applied to."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["linear", "expert", "router", "embedding", "head", "vector"]
"""What a weight does: formats treat these apart. Norms, biases, sinks and convolutions are vectors."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """`count` weights of `[rows, columns]` elements (`[out, in]`, as in torch); `bias` elements beside each of them.

    `used` is how many of them one token passes through: fewer than `count` for the experts of a mixture.
    `max_shards` is over how many GPUs it can be divided, beyond which it is replicated; None is as many as there are.
    """

    name: str
    rows: int
    columns: int
    role: Role = "linear"
    count: int = 1
    bias: bool = False
    used: int | None = None
    max_shards: int | None = None

    @property
    def elements(self) -> int:
        """Parameters in the matrices, without their biases."""
        return self.count * self.rows * self.columns

    @property
    def bias_elements(self) -> int:
        """Parameters in the biases."""
        return self.count * self.rows if self.bias else 0

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.elements + self.bias_elements

    @property
    def active_parameters(self) -> int:
        """The parameters that one token passes through."""
        return self.parameters if self.used is None else self.parameters // self.count * self.used

    def shards(self, num_gpus: int) -> int:
        """Over how many of `num_gpus` it is divided; vectors and routers are on each of them."""
        if self.role in ("vector", "router"):
            return 1
        return num_gpus if self.max_shards is None else min(num_gpus, self.max_shards)


def vector(name: str, size: int, count: int = 1) -> Matrix:
    """`count` vectors of `size` elements: norm weights, sinks and the like."""
    return Matrix(name, size, 1, "vector", count)
