"""The time that physics leaves for a workload: bytes at the rate of a copy, arithmetic at that of a large product.

Every weight and every key and value counts once a step, prefill at the matrix rate (the larger of the two there).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.planner.hf_config import shape_from_config
from headrace.planner.memory import kv_bytes_per_token
from headrace.planner.outline.from_shape import outline_of

_BYTES = 2


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a card was measured to do: bytes a second (read and written together), multiplications and additions."""

    bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True, slots=True)
class Floors:
    """For one model in bfloat16. `weight_bytes` are read by each step, `kv_bytes` are a token's in the cache."""

    ceilings: Ceilings
    weight_bytes: int
    kv_bytes: int
    linear_parameters: int
    attention_width: int

    def decode_seconds(self, batch: int, context: float) -> float:
        """One step of `batch` sequences with `context` tokens in the cache each."""
        return (self.weight_bytes + batch * context * self.kv_bytes) / self.ceilings.bytes_per_second

    def prefill_seconds(self, lengths: Sequence[int]) -> float:
        """Whole prompts, each token of which sees those before it; the head is not computed but for the last."""
        linear = 2 * self.linear_parameters * sum(lengths)
        attention = sum(2 * 2 * self.attention_width * length * length / 2 for length in lengths)
        return (linear + attention) / self.ceilings.flops_per_second

    def generation_seconds(self, lengths: Sequence[tuple[int, int]]) -> float:
        """All of (prompt, answer) at once: as many steps as the longest answer has, the cache's bytes, the prompts."""
        cached = sum(answer * (prompt + answer / 2) for prompt, answer in lengths) * self.kv_bytes
        weights = max(answer for _, answer in lengths) * self.weight_bytes
        prompts = self.prefill_seconds([prompt for prompt, _ in lengths])
        return (cached + weights) / self.ceilings.bytes_per_second + prompts


def floors_of(config: Mapping[str, object], ceilings: Ceilings, kv_element_bytes: int = _BYTES) -> Floors:
    """The floors of a config.json on a card."""
    shape = shape_from_config(config)
    outline = outline_of(shape)
    return Floors(
        ceilings,
        weight_bytes=outline.active_parameters * _BYTES,
        kv_bytes=kv_bytes_per_token(outline, kv_element_bytes),
        linear_parameters=outline.active_parameters - shape.vocab_size * shape.hidden_size,
        attention_width=shape.num_heads * shape.head_dim * shape.num_layers,
    )
