"""The answer to `headrace plan --device cpu`: a model in a host's free memory, as it is and with smaller weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from headrace.core.errors import HeadraceError
from headrace.planner.advice import engine_arguments, raised
from headrace.planner.choose import Demand, allowing
from headrace.planner.cures import cure_of
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.facts import ModelFacts
from headrace.planner.formats import scheme_named
from headrace.planner.memory import GIB
from headrace.planner.memory_plan import MemoryPlan, memory_plan
from headrace.planner.report import memory_as_dict
from headrace.planner.serving import Serving

_FORMS = ("int8", "int4")


@dataclass(frozen=True, slots=True)
class HostReport:
    """`plan` is the answer, `forms` the same in smaller weights; `cure` says what to do where the plan does not fit.

    `arguments` are the engine's that make the plan, none if it does not fit. `lacking` says what it does not do of what
    was asked.
    """

    plan: MemoryPlan
    forms: Mapping[str, MemoryPlan]
    cure: str | None
    lacking: tuple[str, ...]
    arguments: Mapping[str, object]


def report_on_host(
    facts: ModelFacts, serving: Serving, quantization: str | None, free_bytes: int, demand: Demand | None = None
) -> HostReport:
    """Answer for a host with `free_bytes` of memory.

    Raises `HeadraceError` for a context beyond the model, and for what is of GPUs only: several devices, latencies.
    """
    demand = demand or Demand()
    _check(serving, demand)
    memory, asked = DeviceMemory("cpu", free_bytes), serving.max_num_seqs
    roomy = memory_plan(facts, allowing(serving, demand), memory)
    plan = roomy if roomy.fits else memory_plan(facts, serving, memory)
    forms = {
        name: memory_plan(facts, replace(plan.serving, scheme=scheme_named(name, serving.dtype)), memory)
        for name in (_FORMS if quantization is None and facts.scheme is None else ())
    }
    forms = {name: form for name, form in forms.items() if form.lines[0].nbytes < plan.lines[0].nbytes}
    arguments = {} if not plan.fits else {"device": "cpu", **engine_arguments(plan, quantization)}
    arguments.pop("gpu_memory_utilization", None)
    lacking = (*raised(plan, asked), *_crowd(plan, demand.concurrency)) if plan.fits else tuple(_capped(plan))
    return HostReport(plan, forms, None if plan.fits else cure_of(plan), lacking, arguments)


def _check(serving: Serving, demand: Demand) -> None:
    """Raise `HeadraceError` for what a CPU is not asked."""
    for name, value, rule in (
        ("tensor_parallel_size", serving.tensor_parallel_size, "A CPU is one device"),
        ("max_itl_ms", demand.itl_ms, "Speed is predicted for GPUs only; `headrace bench latency` measures it here"),
        ("max_ttft_ms", demand.ttft_ms, "Speed is predicted for GPUs only; `headrace bench latency` measures it here"),
    ):
        if value not in (None, 1) or (value == 1 and name != "tensor_parallel_size"):
            raise HeadraceError(f"{name} is {value}", rule=rule, fix="Leave it out with --device cpu", param=name)


def _crowd(plan: MemoryPlan, wanted: int) -> Iterator[str]:
    """What fits at once, where that is fewer than wanted, and how large a cache would hold them."""
    held, needed = plan.guaranteed(plan.context), wanted * plan.reserved_bytes(plan.context)
    if held >= wanted:
        return
    room = wanted <= plan.serving.max_num_seqs and needed <= plan.room_bytes
    cure = f"; --kv-cache-memory-bytes {needed} holds them" if room else ""
    yield f"{held:,} at once at {plan.context:,} tokens, not {wanted:,}{cure}"


def _capped(plan: MemoryPlan) -> Iterator[str]:
    """That it is the default size of the cache which is too small, not the memory."""
    needed = plan.reserved_bytes(plan.context) if plan.context else plan.block_bytes
    if not plan.serving.kv_asked_for and plan.kv_bytes < needed <= plan.room_bytes:
        yield (
            f"The memory is enough: the KV cache takes {needed / GIB:.2f} GiB for {plan.context:,} tokens, "
            f"and gets {plan.kv_bytes / GIB:.2f} (a quarter of what is free, at most 4) unless its size is named"
        )


def host_as_dict(report: HostReport) -> dict[str, object]:
    """The report for machines, with the words of the report on GPUs."""
    facts = report.plan.facts
    return {
        "model": facts.name,
        "origin": facts.origin,
        "notes": list(facts.notes),
        "parameters": facts.outline.parameters,
        "longest_context": facts.outline.longest_context,
        "device": "cpu",
        "plan": memory_as_dict(report.plan),
        "forms": {name: memory_as_dict(plan) for name, plan in report.forms.items()},
        "cure": report.cure,
        "lacking": list(report.lacking),
        "engine_arguments": dict(report.arguments),
    }
