"""What mixes tokens in a layer, by what it keeps of the past: keys and values, a latent of them, or a fixed state."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headrace.planner.outline.matrix import Matrix, vector

QkNorm = Literal["none", "head", "heads", "full"]
"""Norm weights on queries and keys: of one head's size for all, one for each head, or over all heads together.

"heads" and "full" have as many elements; they differ in what they are computed over.
"""

_FP32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Attention:
    """Softmax attention that keeps keys and values: MHA, GQA or MQA, over all tokens or the last `window`.

    `sinks` are learned logits, one a head (gpt-oss); a `gated` one has a gate beside each query (Qwen3-Next).
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: QkNorm = "none"
    qk_norm_bias: bool = False
    sinks: bool = False
    gated: bool = False

    @property
    def q_size(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key (or value) heads together."""
        return self.num_kv_heads * self.head_dim

    @property
    def width(self) -> int:
        """Elements that a step holds of one token: queries, keys, values and the attention's output."""
        return 2 * self.q_size + 2 * self.kv_size + (self.q_size if self.gated else 0)

    def matrices(self, hidden: int) -> Iterator[Matrix]:
        """The weights."""
        yield Matrix("q_proj", self.q_size * (2 if self.gated else 1), hidden, bias=self.qkv_bias)
        yield Matrix("k_proj", self.kv_size, hidden, bias=self.qkv_bias, max_shards=self.num_kv_heads)
        yield Matrix("v_proj", self.kv_size, hidden, bias=self.qkv_bias, max_shards=self.num_kv_heads)
        yield Matrix("o_proj", hidden, self.q_size, bias=self.output_bias)
        times = 2 if self.qk_norm_bias else 1
        if self.qk_norm == "head":
            yield vector("qk_norm", self.head_dim, 2 * times)
        elif self.qk_norm != "none":
            yield vector("q_norm", self.q_size, times)
            yield vector("k_norm", self.kv_size, times)
        if self.sinks:
            yield vector("sinks", self.num_heads)

    def kv_elements(self, num_shards: int = 1) -> int:
        """Elements that one token keeps on each of `num_shards` GPUs; heads that are too few are replicated."""
        return 2 * max(1, self.num_kv_heads // num_shards) * self.head_dim


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): a token keeps one latent and one rotary key.

    `q_rank` None means that queries are projected without a latent of their own.
    """

    num_heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    bias: bool = False
    window: int | None = None

    @property
    def head_dim(self) -> int:
        """Elements of one query or key."""
        return self.nope_dim + self.rope_dim

    @property
    def width(self) -> int:
        """Elements that a step holds of one token: queries, absorbed queries, the latent and the output."""
        absorbed = self.num_heads * (self.kv_rank + self.rope_dim)
        return self.num_heads * (self.head_dim + self.value_dim) + absorbed + self.kv_elements()

    def matrices(self, hidden: int) -> Iterator[Matrix]:
        """The weights."""
        if self.q_rank is None:
            yield Matrix("q_proj", self.num_heads * self.head_dim, hidden)
        else:
            yield Matrix("q_a_proj", self.q_rank, hidden, bias=self.bias, max_shards=1)
            yield Matrix("q_b_proj", self.num_heads * self.head_dim, self.q_rank)
            yield vector("q_a_layernorm", self.q_rank)
        yield Matrix("kv_a_proj_with_mqa", self.kv_rank + self.rope_dim, hidden, bias=self.bias, max_shards=1)
        yield Matrix("kv_b_proj", self.num_heads * (self.nope_dim + self.value_dim), self.kv_rank)
        yield vector("kv_a_layernorm", self.kv_rank)
        yield Matrix("o_proj", hidden, self.num_heads * self.value_dim, bias=self.bias)

    def kv_elements(self, num_shards: int = 1) -> int:
        """Elements that one token keeps; the latent is one for all heads, so each GPU holds all of it."""
        return self.kv_rank + self.rope_dim


@dataclass(frozen=True, slots=True)
class DeltaNet:
    """Gated linear attention with a fixed state (Gated DeltaNet, arXiv:2412.06464), as in Qwen3-Next."""

    num_key_heads: int
    num_value_heads: int
    key_dim: int
    value_dim: int
    kernel: int

    @property
    def num_heads(self) -> int:
        """Heads that a split over GPUs divides."""
        return self.num_key_heads

    @property
    def _key_size(self) -> int:
        return self.num_key_heads * self.key_dim

    @property
    def _value_size(self) -> int:
        return self.num_value_heads * self.value_dim

    @property
    def _channels(self) -> int:
        return 2 * self._key_size + self._value_size

    @property
    def width(self) -> int:
        """Elements that a step holds of one token: queries, keys, values, gate and output."""
        return self._channels + 2 * self._value_size

    def matrices(self, hidden: int) -> Iterator[Matrix]:
        """The weights."""
        yield Matrix("in_proj_qkvz", self._channels + self._value_size, hidden)
        yield Matrix("in_proj_ba", 2 * self.num_value_heads, hidden)
        yield Matrix("conv1d", self._channels, self.kernel, "vector")
        yield vector("dt_bias and A_log", self.num_value_heads, 2)
        yield vector("norm", self.value_dim)
        yield Matrix("out_proj", hidden, self._value_size)

    def state_bytes(self, dtype_bytes: int, num_shards: int = 1) -> int:
        """What one sequence keeps, whatever its length: the convolution's inputs and the fp32 state."""
        convolution = self._channels * (self.kernel - 1) * dtype_bytes
        state = self.num_value_heads * self.key_dim * self.value_dim * _FP32_BYTES
        return (convolution + state) // num_shards


Mixer = Attention | LatentAttention | DeltaNet
