"""Which GPU, and how many: the smallest that serves a context, a number of sequences at once, and a latency.

Small is little memory in all, where each doubling of the number of GPUs counts as a fifth more: what they say to each
other costs time that memory does not show.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from headrace.core.errors import HeadraceError
from headrace.planner.facts import ModelFacts
from headrace.planner.gpu_limits import refusal_of
from headrace.planner.gpus import Gpu, known_gpus
from headrace.planner.plan import Plan, plan_on
from headrace.planner.roofline import decode_speed, prefill_seconds
from headrace.planner.serving import Serving, check_count
from headrace.planner.tensor_parallel import check_tensor_parallel, divides

_COUNTS = (1, 2, 4, 8)
_A_DOUBLING = 1.2
_MOST_AT_ONCE = 65_536
"""More sequences than that run on no GPU that is known."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a plan must do: so many sequences of the whole context at once, and predicted latencies within targets.

    `itl_ms` is between two tokens with all sequences running, `ttft_ms` to the first token of a prompt of half the
    context on an idle server.
    """

    concurrency: int = 1
    itl_ms: float | None = None
    ttft_ms: float | None = None

    def __post_init__(self) -> None:
        check_count("concurrency", self.concurrency)
        for name, target in (("max_itl_ms", self.itl_ms), ("max_ttft_ms", self.ttft_ms)):
            if target is not None and not 0 < target < math.inf:
                rule, fix = "It must be a number of milliseconds above 0", "Leave it out for any latency"
                raise HeadraceError(f"{name} is {target!r}", rule=rule, fix=fix, param=name)

    def is_met_by(self, plan: Plan) -> bool:
        """Whether a plan does it."""
        return plan.fits and plan.guaranteed(plan.context) >= self.concurrency and not self.misses(plan)

    def misses(self, plan: Plan) -> list[str]:
        """The targets of latency that a plan is predicted to miss, in words."""
        step = decode_speed(plan, self.concurrency, plan.context // 2).step_seconds * 1000
        first = prefill_seconds(plan, max(1, plan.context // 2)) * 1000
        checks = (("between two tokens", step, self.itl_ms), ("to the first token", first, self.ttft_ms))
        return [
            f"{took:.3g} ms {what}, not {most:g}" for what, took, most in checks if most is not None and took > most
        ]


def allowing(serving: Serving, demand: Demand) -> Serving:
    """The same where as many sequences may run at once as are demanded."""
    rows = max(serving.max_num_seqs, demand.concurrency)
    if rows > _MOST_AT_ONCE:
        return serving
    return replace(serving, max_num_seqs=rows, max_num_batched_tokens=max(rows, serving.max_num_batched_tokens))


def check_group(facts: ModelFacts, serving: Serving) -> None:
    """Raise `HeadraceError` for a number of GPUs that cannot share the model, or that no known GPU comes in."""
    size, largest = serving.tensor_parallel_size, max(gpu.largest_group for gpu in known_gpus())
    check_tensor_parallel(facts.outline, size)
    if size != 1 and size not in _COUNTS:
        raise HeadraceError(
            f"tensor_parallel_size is {size}",
            rule=f"Known GPUs are joined in groups of 2, 4 and, at most, {largest}",
            fix=f"Use 2, 4 or {largest}",
            param="tensor_parallel_size",
        )


def choices(facts: ModelFacts, serving: Serving, demand: Demand) -> list[Plan]:
    """For each GPU that can do it the fewest of them, or as many as were asked for; the smallest first.

    Without `serving.max_model_len` the context is the model's whole one.
    """
    wanted = replace(allowing(serving, demand), max_model_len=serving.max_model_len or facts.outline.longest_context)
    found = [plan for gpu in known_gpus() if (plan := _fewest(facts, wanted, gpu, demand)) is not None]
    return sorted(found, key=weighted_bytes)


def nearest(facts: ModelFacts, serving: Serving) -> Plan:
    """The plan with the most room in all that the model can be divided over, whether it fits or not."""
    return max((plan for gpu in known_gpus() for plan in _plans(facts, serving, gpu)), key=_room)


def weighted_bytes(plan: Plan) -> float:
    """The memory of all GPUs of a plan, weighted by how many they are."""
    count = plan.serving.tensor_parallel_size
    return plan.gpu.usable_bytes * count * math.pow(_A_DOUBLING, math.log2(count))


def _fewest(facts: ModelFacts, serving: Serving, gpu: Gpu, demand: Demand) -> Plan | None:
    return next((plan for plan in _plans(facts, serving, gpu) if demand.is_met_by(plan)), None)


def _plans(facts: ModelFacts, serving: Serving, gpu: Gpu) -> Iterator[Plan]:
    asked = serving.tensor_parallel_size
    if refusal_of(serving, gpu) is not None:
        return
    for count in _COUNTS if asked == 1 else (asked,):
        if count <= gpu.largest_group and divides(facts.outline, count):
            yield plan_on(facts, replace(serving, tensor_parallel_size=count), gpu)


def _room(plan: Plan) -> int:
    """For the cache on all GPUs; what one of them lacks, negative, where it does not fit."""
    return plan.room_bytes * (plan.serving.tensor_parallel_size if plan.room_bytes > 0 else 1)
