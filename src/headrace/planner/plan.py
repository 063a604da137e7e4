"""A model on a GPU of the catalogue, or on several: its memory, and what its speed is predicted from."""

from dataclasses import dataclass, replace

from headrace.planner.facts import ModelFacts
from headrace.planner.gpu_limits import refusal_of
from headrace.planner.gpus import Gpu
from headrace.planner.lines import fixed_lines
from headrace.planner.memory_plan import MemoryPlan, check_context
from headrace.planner.serving import Serving
from headrace.planner.tensor_parallel import check_tensor_parallel


@dataclass(frozen=True)
class Plan(MemoryPlan):
    """The outcome for one kind of GPU, `serving.tensor_parallel_size` of them. Bytes are those of each GPU."""

    gpu: Gpu


def plan_on(facts: ModelFacts, serving: Serving, gpu: Gpu) -> Plan:
    """The plan for a GPU that nobody else uses.

    Where the GPU has no bfloat16, float16 takes its place, unless bfloat16 was asked for. Raises `HeadraceError` for
    what the GPU cannot do, more GPUs than can share the model, or a context beyond it.
    """
    check_context(facts, serving)
    check_tensor_parallel(facts.outline, serving.tensor_parallel_size)
    if (refusal := refusal_of(serving, gpu)) is not None:
        raise refusal
    if serving.dtype == "bfloat16" and not gpu.has_bfloat16:
        serving = replace(serving, dtype="float16")
    return Plan(facts, serving, gpu.memory, fixed_lines(facts, serving, gpu.memory), gpu)
