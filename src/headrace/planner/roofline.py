"""How fast a plan is: what a step launches, reads, computes and passes on, each at the rate that was measured for it.

A step takes its launches, its attention and the bytes of its activations one after another. Attention reads the cache
or multiplies, whichever is longer; reading the weights and multiplying by them overlap, but not perfectly (their root
sum of squares). The rates are fitted on one H100 by
`benchmarks/fit_roofline.py` and kept in `data/roofline.json`; on a GPU that was not measured they may be further off
than `ERROR_BAND` says.

Weights of int8 and int4 are multiplied out by torch at each call: that moves many times the bytes that are saved, and
int8 then multiplies in fp32. What that takes is counted, not measured.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from headrace.planner.gpus import Gpu
from headrace.planner.memory import ideal_kv_bytes
from headrace.planner.outline.matrix import Matrix
from headrace.planner.outline.model import Layer, ModelOutline
from headrace.planner.plan import Plan

ERROR_BAND: Final = 0.25
"""Of a step at batch 1 to 256 of the shapes and contexts that were measured."""

_KERNELS_A_LAYER = 9
"""Two norms, four products, the rotation with the cache's write, attention, the activation."""
_KERNELS_OF_EXPERTS = 5
_KERNELS_A_STEP = 6
_FOUR_BIT_SHARE = 2 / 3
"""Of the rate at which plain weights are read."""
_UNPACKING_BYTES = {"int8": 8.0, "int4": 24.5}
"""Scheme -> bytes that a GPU moves for each element beside reading it, until it is in the dtype that is multiplied.

int8 is written and read as fp32. int4 is split into halves, put together, scaled, shifted, rounded and read.
"""
_FP32_SHARES = {"7.5": 1 / 8, "8.0": 1 / 16, "9.0": 1 / 15, "10.0": 1 / 28, "gfx942": 1 / 8}
"""Compute capability -> fp32's share of the arithmetic in 16 bits, by the vendors' data sheets."""
_OTHER_FP32_SHARE = 1 / 4
"""As on an L4, L40S or A10."""
_ATTENTION_SHARE = 0.42
"""Of the arithmetic, by prefill attention: 400 to 415 TFLOP/s on an H100 (docs/benchmarks/gpu_kernels.md)."""
_REDUCE_SECONDS = 10e-6


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a device reaches: seconds a kernel beyond its bytes, and shares of the vendor's bandwidth and arithmetic."""

    kernel_seconds: float
    weights_share: float
    cache_share: float
    activations_share: float
    compute_share: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Efficiencies with the measurements' date, the card, and the command that fitted them."""

    efficiency: Efficiency
    as_of: str
    gpu: str
    command: str


@dataclass(frozen=True, slots=True)
class Speed:
    """Of `batch` sequences that are answered at once; a step's seconds are the inter-token latency."""

    batch: int
    step_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of all sequences together."""
        return self.batch / self.step_seconds


def error_band(plan: Plan) -> float | None:
    """`ERROR_BAND`, or None where no step with weights like the plan's was measured."""
    return None if _scheme_name(plan) in _UNPACKING_BYTES else ERROR_BAND


def basis(plan: Plan) -> str:
    """How far a prediction for the plan can be trusted, in words."""
    if error_band(plan) is not None:
        return f"fitted on an {fitted().gpu}: +-{ERROR_BAND:.0%}"
    return f"{_scheme_name(plan)} is unpacked at each call: counted, not measured"


@cache
def fitted() -> Fit:
    """The fit that predictions are made with."""
    entry = json.loads((files("headrace.planner") / "data" / "roofline.json").read_text())
    return Fit(Efficiency(**entry["efficiency"]), entry["as_of"], entry["gpu"], entry["command"])


def decode_speed(plan: Plan, batch: int, context: int, efficiency: Efficiency | None = None) -> Speed:
    """One token for each of `batch` sequences that are `context` tokens long."""
    serving = plan.serving
    cache = ideal_kv_bytes(plan.facts.outline, context, serving.kv_bytes, serving.tensor_parallel_size)
    work = _Work(num_tokens=batch, context=context, num_logits=batch, cache_bytes=batch * cache)
    return Speed(batch, _seconds(plan, work, efficiency or fitted().efficiency))


def prefill_seconds(plan: Plan, num_tokens: int, efficiency: Efficiency | None = None) -> float:
    """A prompt of this many tokens with nothing else to do, up to its first token: the time to first token."""
    seconds, most = 0.0, plan.serving.max_num_batched_tokens
    for start in range(0, num_tokens, most):
        count = min(most, num_tokens - start)
        work = _Work(num_tokens=count, context=start + count // 2, num_logits=1, cache_bytes=0)
        seconds += _seconds(plan, work, efficiency or fitted().efficiency)
    return seconds


@dataclass(frozen=True, slots=True)
class _Work:
    """One step: its tokens with their mean context, the rows that get logits, the bytes of the cache that it reads."""

    num_tokens: int
    context: int
    num_logits: int
    cache_bytes: int


def _seconds(plan: Plan, work: _Work, reached: Efficiency) -> float:
    bandwidth, shards = plan.gpu.bandwidth_gbs * 1e9, plan.serving.tensor_parallel_size
    share = reached.weights_share * (_FOUR_BIT_SHARE if _is_four_bit(plan) else 1.0)
    arithmetic = plan.gpu.tflops_16 * 1e12 * shards
    reading = _weights_read(plan, work.num_tokens) / (bandwidth * share)
    reached_share = reached.compute_share * (_fp32_share(plan.gpu) if _scheme_name(plan) == "int8" else 1.0)
    computing = _products(plan, work) / (arithmetic * reached_share)
    cache = work.cache_bytes / (bandwidth * reached.cache_share)
    attention = max(cache, _attention(plan, work) / (arithmetic * _ATTENTION_SHARE))
    passing_on = _activations_moved(plan, work) / shards / (bandwidth * reached.activations_share)
    return _fixed(plan, reached) + math.hypot(reading, computing) + attention + passing_on


def _products(plan: Plan, work: _Work) -> float:
    """Two operations for each token and parameter that it passes through; the head's only for rows with logits."""
    outline = plan.facts.outline
    head = outline.vocab_size * outline.hidden_size
    return work.num_tokens * 2 * (outline.active_parameters - head) + 2 * work.num_logits * head


def _attention(plan: Plan, work: _Work) -> float:
    """Four operations for each element of the queries and token of context."""
    layers, context = plan.facts.outline.attention_layers, work.context
    queries = sum(mixer.num_heads * mixer.head_dim * min(context, mixer.window or context) for mixer in layers)
    return work.num_tokens * 4 * queries


def _activations_moved(plan: Plan, work: _Work) -> float:
    """Bytes that kernels write and the next ones read again: of each token in each layer, and the logits."""
    outline, size = plan.facts.outline, plan.serving.dtype_bytes
    layers = sum(_moved_a_token(layer, outline.hidden_size, size) * times for layer, times in outline.kinds)
    return work.num_tokens * layers + 2 * work.num_logits * outline.vocab_size * size


def _moved_a_token(layer: Layer, hidden: int, size: int) -> int:
    """The fp32 residual and the normed input of both halves, and all that is between their products."""
    halves = 2 * hidden * (2 * 4 + 3 * size)
    return halves + 2 * size * (layer.mixer.width + layer.feed_forward.width)


def _weights_read(plan: Plan, num_tokens: int) -> float:
    """The bytes that a step moves for the weights on each GPU: of experts only those that some token goes to."""
    outline = plan.facts.outline
    read = sum(_share_read(matrix, num_tokens, outline) * matrix.parameters for matrix in outline.matrices)
    unpacking = read * _UNPACKING_BYTES.get(_scheme_name(plan), 0.0) / plan.serving.tensor_parallel_size
    return plan.lines[0].nbytes * read / outline.parameters + unpacking


def _share_read(matrix: Matrix, num_tokens: int, outline: ModelOutline) -> float:
    if matrix.role == "embedding":
        return 1.0 if outline.tie_word_embeddings and matrix.rows == outline.vocab_size else 0.0
    if matrix.used is None:
        return 1.0
    return 1 - (1 - matrix.used / matrix.count) ** num_tokens


def _scheme_name(plan: Plan) -> str:
    scheme = plan.serving.scheme or plan.facts.scheme
    return "" if scheme is None else scheme.name


def _fp32_share(gpu: Gpu) -> float:
    return _FP32_SHARES.get(gpu.capability, _OTHER_FP32_SHARE)


def _is_four_bit(plan: Plan) -> bool:
    """Whether kernels read weights of about four bits as they are."""
    scheme = plan.serving.scheme or plan.facts.scheme
    return scheme is not None and scheme.linear.bits < 6 and scheme.name not in _UNPACKING_BYTES


def _fixed(plan: Plan, reached: Efficiency) -> float:
    """The kernels that are launched, and two sums over all GPUs a layer."""
    outline, size = plan.facts.outline, plan.serving.tensor_parallel_size
    each = _KERNELS_A_LAYER + (_KERNELS_OF_EXPERTS if outline.num_experts else 0)
    reduces = 2 * outline.num_layers * _REDUCE_SECONDS if size > 1 else 0.0
    return (each * outline.num_layers + _KERNELS_A_STEP) * reached.kernel_seconds + reduces
