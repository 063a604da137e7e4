"""Which GPU, and how many: the smallest that serves a context, a number of sequences at once, and a latency.

Small is little memory in all, where each doubling of the number of GPUs counts as a fifth more: what they say to each
other costs time that memory does not show.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from headrace.core.errors import HeadraceError
from headrace.planner.facts import ModelFacts
from headrace.planner.gpus import Gpu, known_gpus
from headrace.planner.plan import Plan, plan_on
from headrace.planner.roofline import decode_speed, prefill_seconds
from headrace.planner.serving import Serving, check_count
from headrace.planner.tensor_parallel import divides

_COUNTS = (1, 2, 4, 8)
_A_DOUBLING = 1.2


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
            f"{took:.0f} ms {what}, not {most:g}" for what, took, most in checks if most is not None and took > most
        ]


def choices(facts: ModelFacts, serving: Serving, demand: Demand) -> list[Plan]:
    """For each GPU that can do it the fewest of them, the smallest first.

    Without `serving.max_model_len` the context is the model's whole one.
    """
    wanted = replace(serving, max_model_len=serving.max_model_len or facts.outline.longest_context)
    found = [plan for gpu in known_gpus() if (plan := _fewest(facts, wanted, gpu, demand)) is not None]
    return sorted(found, key=weighted_bytes)


def nearest(facts: ModelFacts, serving: Serving) -> Plan:
    """The plan with the most memory in all that the model can be divided over, whether it fits or not."""
    plans = [plan for gpu in known_gpus() for plan in _plans(facts, serving, gpu)]
    return max(plans, key=lambda plan: plan.kv_bytes * plan.serving.tensor_parallel_size)


def weighted_bytes(plan: Plan) -> float:
    """The memory of all GPUs of a plan, weighted by how many they are."""
    count = plan.serving.tensor_parallel_size
    return plan.gpu.usable_bytes * count * math.pow(_A_DOUBLING, math.log2(count))


def _fewest(facts: ModelFacts, serving: Serving, gpu: Gpu, demand: Demand) -> Plan | None:
    return next((plan for plan in _plans(facts, serving, gpu) if demand.is_met_by(plan)), None)


def _plans(facts: ModelFacts, serving: Serving, gpu: Gpu) -> Iterator[Plan]:
    for count in _COUNTS:
        if count <= gpu.largest_group and divides(facts.outline, count):
            yield plan_on(facts, replace(serving, tensor_parallel_size=count), gpu)
