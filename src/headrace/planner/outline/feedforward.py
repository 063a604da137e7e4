"""The feed-forward part of a layer: one MLP, or a router and experts."""

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.planner.outline.matrix import Matrix, Role


@dataclass(frozen=True, slots=True)
class Mlp:
    """One MLP; a `gated` one (SwiGLU, GeGLU) has three matrices, a plain one two."""

    intermediate: int
    gated: bool = True
    bias: bool = False

    @property
    def width(self) -> int:
        """Elements that a step holds of one token: gate and up, and their product."""
        return (3 if self.gated else 2) * self.intermediate

    def matrices(self, hidden: int) -> Iterator[Matrix]:
        """The weights."""
        yield from _mlp(hidden, self.intermediate, self.gated, self.bias)


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture: a token goes to `per_token` of `count` experts of `intermediate`, and to the shared one if there is.

    `router_bias` and `bias` are gpt-oss's; a `shared_gate` is Qwen's, one row; `gated` as in `Mlp`.
    """

    count: int
    per_token: int
    intermediate: int
    shared_intermediate: int = 0
    shared_gate: bool = False
    router_bias: bool = False
    bias: bool = False
    gated: bool = True

    @property
    def width(self) -> int:
        """Elements that a step holds of one token: gate, up and their product in each expert that it goes to."""
        return (3 if self.gated else 2) * (self.per_token * self.intermediate + self.shared_intermediate)

    def matrices(self, hidden: int) -> Iterator[Matrix]:
        """The weights."""
        yield Matrix("router", self.count, hidden, "router", bias=self.router_bias)
        yield from _mlp(hidden, self.intermediate, self.gated, self.bias, self.count, self.per_token)
        if self.shared_intermediate:
            yield from _mlp(hidden, self.shared_intermediate, self.gated, self.bias)
        if self.shared_gate:
            yield Matrix("shared_expert_gate", 1, hidden, "router")


FeedForward = Mlp | Experts


def _mlp(
    hidden: int, intermediate: int, gated: bool, bias: bool, count: int = 1, used: int | None = None
) -> Iterator[Matrix]:
    role: Role = "linear" if used is None else "expert"
    for name in ("gate_proj", "up_proj") if gated else ("up_proj",):
        yield Matrix(name, intermediate, hidden, role, count, bias, used)
    yield Matrix("down_proj", hidden, intermediate, role, count, bias, used)
