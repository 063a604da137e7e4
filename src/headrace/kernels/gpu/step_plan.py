"""What the attention of all layers shares in one step; kept in `StepBatch.plan`."""

from dataclasses import dataclass, field

import numpy as np

from headrace.kernels.gpu.decode_plan import DecodeWork
from headrace.kernels.ops import StepBatch


@dataclass(slots=True)
class AttentionPlan:
    """Which kinds of rows a step has, and the decoding rows' work by window."""

    has_decode: bool
    has_prefill: bool
    decode: dict[int | None, DecodeWork] = field(default_factory=dict)


def attention_plan(batch: StepBatch) -> AttentionPlan:
    """The plan of a step, made on first use."""
    if not isinstance(batch.plan, AttentionPlan):
        single = batch.query_lens == 1
        batch.plan = AttentionPlan(bool(np.any(single)), not bool(np.all(single)))
    return batch.plan
