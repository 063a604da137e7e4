"""Memory against the context and against the sequences at once, as points; and what GPUs, or a host, allow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.planner.gpus import known_gpus
from headrace.planner.memory_plan import MemoryPlan

_SHORTEST_CONTEXT = 256
_CURVES = 3
_ALIKE = 1.02


@dataclass(frozen=True, slots=True)
class Curve:
    """Bytes on each device (`nbytes`) at each of `counts`: tokens of context, or sequences at once."""

    label: str
    counts: tuple[int, ...]
    nbytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """What may be used of GPUs with about as much memory as each other; `nbytes` is the least of them."""

    gpus: tuple[str, ...]
    nbytes: int


def memory_bytes(plan: MemoryPlan, context: int, sequences: int) -> int:
    """All that is on each device that serves so many full sequences of `context` tokens, whether it fits or not."""
    at_context = replace(plan, serving=replace(plan.serving, max_model_len=context))
    return at_context.fixed_bytes + sequences * at_context.reserved_bytes(context)


def against_context(plan: MemoryPlan) -> tuple[Curve, ...]:
    """For one sequence, for as many as may run at once, and between; from a short context to the model's longest."""
    longest = plan.facts.outline.longest_context
    counts = _doublings(min(_SHORTEST_CONTEXT, longest), longest)
    return tuple(
        Curve(_sequences(each), counts, tuple(memory_bytes(plan, length, each) for length in counts))
        for each in _spread(plan.serving.max_num_seqs, 16)
    )


def against_concurrency(plan: MemoryPlan) -> tuple[Curve, ...]:
    """For the context that is planned for, and shorter ones: from one sequence to the most that may run at once."""
    counts = _doublings(1, plan.serving.max_num_seqs)
    longest = plan.context or plan.facts.outline.longest_context
    return tuple(
        Curve(f"{length:,} tokens", counts, tuple(memory_bytes(plan, length, each) for each in counts))
        for length in _spread(longest, 4)
    )


def levels(plan: MemoryPlan) -> tuple[Level, ...]:
    """Every known GPU by what may be used of it, smallest first; for a plan on a host only that."""
    if plan.memory.on_cpu:
        return (Level(("free memory",), plan.allowed_bytes),)
    found: list[Level] = []
    for gpu in known_gpus():
        nbytes = gpu.memory.allowed_bytes(plan.serving.gpu_memory_utilization)
        if found and nbytes <= found[-1].nbytes * _ALIKE:
            found[-1] = replace(found[-1], gpus=(*found[-1].gpus, gpu.name))
        else:
            found.append(Level((gpu.name,), nbytes))
    return tuple(found)


def _doublings(first: int, last: int) -> tuple[int, ...]:
    counts = [first]
    while counts[-1] * 2 < last:
        counts.append(counts[-1] * 2)
    return (*counts, last) if last > first else tuple(counts)


def _spread(most: int, step: int) -> Sequence[int]:
    """`most` and two fewer, each the `step`-th part of the next, down to 1."""
    return sorted({max(1, most // step**power) for power in range(_CURVES)})


def _sequences(count: int) -> str:
    return "1 sequence" if count == 1 else f"{count:,} sequences"
