"""The answer to `headrace plan --device cpu`: a model in a host's free memory, as it is and with smaller weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headrace.planner.advice import engine_arguments
from headrace.planner.cures import cure_of
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.facts import ModelFacts
from headrace.planner.formats import scheme_named
from headrace.planner.memory_plan import MemoryPlan, memory_plan
from headrace.planner.report import memory_as_dict
from headrace.planner.serving import Serving

_FORMS = ("int8", "int4")


@dataclass(frozen=True, slots=True)
class HostReport:
    """`plan` is the answer, `forms` the same in smaller weights; `cure` says what to do where the plan does not fit.

    `arguments` are the engine's that make the plan, none if it does not fit.
    """

    plan: MemoryPlan
    forms: Mapping[str, MemoryPlan]
    cure: str | None
    arguments: Mapping[str, object]


def report_on_host(facts: ModelFacts, serving: Serving, quantization: str | None, free_bytes: int) -> HostReport:
    """Answer for a host with `free_bytes` of memory. Raises `HeadraceError` for a context beyond the model."""
    memory = DeviceMemory("cpu", free_bytes)
    plan = memory_plan(facts, serving, memory)
    forms = {
        name: memory_plan(facts, replace(serving, scheme=scheme_named(name, serving.dtype)), memory)
        for name in (_FORMS if quantization is None and facts.scheme is None else ())
    }
    arguments = {} if not plan.fits else {"device": "cpu", **engine_arguments(plan, quantization)}
    arguments.pop("gpu_memory_utilization", None)
    return HostReport(plan, forms, None if plan.fits else cure_of(plan), arguments)


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
        "engine_arguments": dict(report.arguments),
    }
