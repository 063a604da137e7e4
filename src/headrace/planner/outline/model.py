"""The outline of a decoder: every dimension that its memory and speed depend on, whether the engine runs it or not.

The engine's own `ModelShape` is the strict case of it: layers all alike, of the families that are served.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from headrace.planner.outline.feedforward import FeedForward
from headrace.planner.outline.matrix import Matrix, vector
from headrace.planner.outline.mixers import Attention, DeltaNet, LatentAttention, Mixer


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer: a mixer, a feed-forward part, and `num_norms` norms of hidden size."""

    mixer: Mixer
    feed_forward: FeedForward
    num_norms: int = 2

    @property
    def width(self) -> int:
        """The most elements that a step holds of one token inside of this layer."""
        return max(self.mixer.width, self.feed_forward.width)


@dataclass(frozen=True)
class ModelOutline:
    """A decoder-only model. Sizes are in elements; `layers` has one entry a layer.

    `norm_vectors` is what a norm has: 0 nothing, 1 a weight, 2 a weight and a bias. `num_positions` are the learned
    position embeddings, 0 with rotary ones. `longest_context` is `max_position_embeddings` stretched by rope scaling.
    `dtype` is the checkpoint's own. `notes` say what was assumed.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    layers: tuple[Layer, ...]
    max_position_embeddings: int
    longest_context: int
    tie_word_embeddings: bool
    norm_vectors: int = 1
    num_outer_norms: int = 1
    num_positions: int = 0
    head_bias: bool = False
    dtype: str = "bfloat16"
    notes: tuple[str, ...] = ()

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    @cached_property
    def kinds(self) -> tuple[tuple[Layer, int], ...]:
        """The different layers, each with how many there are."""
        return tuple(Counter(self.layers).items())

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """All weights; those of equal layers together."""
        return tuple(self._matrices())

    @property
    def parameters(self) -> int:
        """The number of parameters; a tied head is not counted twice."""
        return sum(matrix.parameters for matrix in self.matrices)

    @property
    def active_parameters(self) -> int:
        """The parameters that one token passes through, without the embedding table unless it is the head too."""
        table = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return sum(matrix.active_parameters for matrix in self.matrices) - table

    @property
    def attention_layers(self) -> tuple[Attention | LatentAttention, ...]:
        """The mixers that keep something of each token."""
        return tuple(layer.mixer for layer in self.layers if not isinstance(layer.mixer, DeltaNet))

    @property
    def num_experts(self) -> int:
        """Experts in a layer that has any; 0 for a dense model."""
        return max((getattr(layer.feed_forward, "count", 0) for layer, _ in self.kinds), default=0)

    def _matrices(self) -> Iterator[Matrix]:
        hidden = self.hidden_size
        yield Matrix("embed_tokens", self.vocab_size, hidden, "embedding")
        if self.num_positions:
            yield Matrix("embed_positions", self.num_positions, hidden, "embedding")
        for layer, times in self.kinds:
            for matrix in self._of_layer(layer):
                used = None if matrix.used is None else matrix.used * times
                yield replace(matrix, count=matrix.count * times, used=used)
        if self.norm_vectors:
            yield vector("norm", hidden, self.num_outer_norms * self.norm_vectors)
        if not self.tie_word_embeddings:
            yield Matrix("lm_head", self.vocab_size, hidden, "head", bias=self.head_bias)
        elif self.head_bias:
            yield vector("lm_head.bias", self.vocab_size)

    def _of_layer(self, layer: Layer) -> Iterator[Matrix]:
        yield from layer.mixer.matrices(self.hidden_size)
        yield from layer.feed_forward.matrices(self.hidden_size)
        if layer.num_norms and self.norm_vectors:
            yield vector("norms", self.hidden_size, layer.num_norms * self.norm_vectors)
