"""How fast a plan is: a step takes as long as its bytes or its operations, whichever is more, and what is fixed.

The efficiencies are those that vLLM 0.26 reached on one H100 with Qwen3-0.6B and an 8B shape; a GPU or an engine that
was not measured may be further off than `ERROR_BAND` says.
"""

from dataclasses import dataclass
from typing import Final

from headrace.planner.memory import ideal_kv_bytes
from headrace.planner.outline.matrix import Matrix
from headrace.planner.outline.model import ModelOutline
from headrace.planner.plan import Plan

ERROR_BAND: Final = 0.25
"""Of the step at batch 1, 32, 128 and 256; small models between batch 8 and 64 are slower than predicted."""

_BANDWIDTH_SHARE = 0.75
_FOUR_BIT_SHARE = 0.5
_COMPUTE_SHARE = 0.45
_SMALL_COMPUTE_SHARE = 0.35
_SMALL_PARAMETERS = 1_000_000_000
_LAUNCHES_A_LAYER = 8
_LAUNCH_SECONDS = 2.5e-6
_HOST_SECONDS = 0.4e-3
_REDUCE_SECONDS = 10e-6


@dataclass(frozen=True, slots=True)
class Speed:
    """Of `batch` sequences that are answered at once; a step's seconds are the inter-token latency."""

    batch: int
    step_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of all sequences together."""
        return self.batch / self.step_seconds


def decode_speed(plan: Plan, batch: int, context: int) -> Speed:
    """One token for each of `batch` sequences that are `context` tokens long."""
    gpu, serving, outline = plan.gpu, plan.serving, plan.facts.outline
    share = _FOUR_BIT_SHARE if _is_four_bit(plan) else _BANDWIDTH_SHARE
    weights = _weights_read(plan, batch) / (gpu.bandwidth_gbs * 1e9 * share)
    cache = ideal_kv_bytes(outline, context, serving.kv_bytes, serving.tensor_parallel_size)
    reading = weights + batch * cache / (gpu.bandwidth_gbs * 1e9 * _BANDWIDTH_SHARE)
    return Speed(batch, max(reading, _computing(plan, batch, context, batch)) + _fixed(plan))


def prefill_seconds(plan: Plan, num_tokens: int) -> float:
    """A prompt of this many tokens with nothing else to do, up to its first token: the time to first token."""
    reading = plan.lines[0].nbytes / (plan.gpu.bandwidth_gbs * 1e9 * _BANDWIDTH_SHARE)
    steps = -(-num_tokens // plan.serving.max_num_batched_tokens)
    return max(reading, _computing(plan, num_tokens, num_tokens // 2, 1)) + steps * _fixed(plan)


def _computing(plan: Plan, num_tokens: int, context: int, num_logits: int) -> float:
    """Two operations a parameter, and attention's: four for each element of the queries and token of context."""
    outline, gpu = plan.facts.outline, plan.gpu
    queries = sum(
        mixer.num_heads * mixer.head_dim * min(context, mixer.window or context) for mixer in outline.attention_layers
    )
    head = outline.vocab_size * outline.hidden_size
    operations = num_tokens * (2 * (outline.active_parameters - head) + 4 * queries) + 2 * num_logits * head
    share = _SMALL_COMPUTE_SHARE if outline.parameters < _SMALL_PARAMETERS else _COMPUTE_SHARE
    return operations / plan.serving.tensor_parallel_size / (gpu.tflops_16 * 1e12 * share)


def _weights_read(plan: Plan, batch: int) -> float:
    """The bytes that a step reads of the weights on each GPU: of experts only those that some token goes to."""
    outline = plan.facts.outline
    read = sum(_share_read(matrix, batch, outline) * matrix.parameters for matrix in outline.matrices)
    return plan.lines[0].nbytes * read / outline.parameters


def _share_read(matrix: Matrix, batch: int, outline: ModelOutline) -> float:
    if matrix.role == "embedding":
        return 1.0 if outline.tie_word_embeddings and matrix.rows == outline.vocab_size else 0.0
    if matrix.used is None:
        return 1.0
    return 1 - (1 - matrix.used / matrix.count) ** batch


def _is_four_bit(plan: Plan) -> bool:
    scheme = plan.serving.scheme or plan.facts.scheme
    return scheme is not None and scheme.linear.bits < 6


def _fixed(plan: Plan) -> float:
    """Launches, the host, and two sums over all GPUs a layer."""
    layers, size = plan.facts.outline.num_layers, plan.serving.tensor_parallel_size
    reduces = 2 * layers * _REDUCE_SECONDS if size > 1 else 0.0
    return layers * _LAUNCHES_A_LAYER * _LAUNCH_SECONDS + _HOST_SECONDS + reduces
