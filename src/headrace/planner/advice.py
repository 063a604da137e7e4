"""What to type, what lighter weights, a lighter cache or a shorter context would change, and what a GPU cannot do."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from headrace.planner.choose import Demand, choices, weighted_bytes
from headrace.planner.formats import scheme_named
from headrace.planner.memory_plan import MemoryPlan
from headrace.planner.misfit import holds
from headrace.planner.plan import Plan, plan_on
from headrace.planner.serving import Serving

_SMALLER = ("int8", "int4")


def engine_arguments(plan: MemoryPlan, quantization: str | None) -> dict[str, object]:
    """The engine's arguments that make this plan, beside the model."""
    serving = plan.serving
    arguments: dict[str, object] = {
        "max_model_len": plan.context,
        "gpu_memory_utilization": serving.gpu_memory_utilization,
        "max_num_seqs": serving.max_num_seqs,
        "max_num_batched_tokens": serving.max_num_batched_tokens,
    }
    special: dict[str, tuple[object, object]] = {
        "dtype": (serving.dtype, plan.facts.outline.dtype),
        "quantization": (quantization, None),
        "kv_cache_dtype": (serving.kv_cache_dtype, "auto"),
        "block_size": (serving.block_size, Serving().block_size),
        "tensor_parallel_size": (serving.tensor_parallel_size, 1),
        "enforce_eager": (serving.enforce_eager, False),
        "kv_cache_memory_bytes": (serving.kv_cache_memory_bytes, None),
        "num_gpu_blocks_override": (serving.num_gpu_blocks_override, None),
    }
    return arguments | {name: value for name, (value, default) in special.items() if value != default}


def as_flags(arguments: Mapping[str, object]) -> list[str]:
    """The same as flags of `headrace serve`."""
    flags = []
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        flags += [flag] if value is True else [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return flags


def advice(plan: Plan, demand: Demand) -> list[str]:
    """Sentences, what helps most first."""
    lines = [*_crowd(plan, demand)] if plan.fits else []
    return [*lines, *lighter(plan, demand.concurrency), *_smaller_gpu(plan, demand), *plan.gpu.limits]


def lighter(plan: Plan, wanted: int) -> Iterator[str]:
    """What other weights or another cache would make of it, where it is better; `wanted` run at once."""
    yield from _lighter_weights(plan, wanted)
    yield from _lighter_cache(plan, wanted)


def raised(plan: MemoryPlan, asked: int) -> Iterator[str]:
    """Why more sequences may run than `asked` for, where the plan has it so."""
    if plan.serving.max_num_seqs > asked:
        yield f"--max-num-seqs is {plan.serving.max_num_seqs} here: as many may run at once as were asked for"


def _crowd(plan: Plan, demand: Demand) -> Iterator[str]:
    """What it does not do although it fits."""
    wanted, held, length = demand.concurrency, plan.guaranteed(plan.context), plan.context
    shorter = plan.num_blocks // wanted * plan.serving.block_size
    if held < wanted:
        cure = f"; at {shorter:,} tokens they do" if shorter and wanted <= plan.serving.max_num_seqs else ""
        many = "sequence fits" if held == 1 else "sequences fit"
        yield f"{held:,} {many} at once at {length:,} tokens, not {wanted:,}{cure}"
    yield from (f"Predicted: {miss}" for miss in demand.misses(plan))


def _lighter_weights(plan: Plan, wanted: int) -> Iterator[str]:
    """What other weights would make of it, where the checkpoint is not quantized yet."""
    size = plan.serving.tensor_parallel_size
    if plan.serving.dtype == "float32" and not _is_quantized(plan):
        half = "bfloat16" if plan.gpu.has_bfloat16 else "float16"
        yield from _if_better(plan, wanted, f"--dtype {half} on {size} x {plan.gpu.name}", dtype=half)
    for name in () if _is_quantized(plan) else _SMALLER:
        scheme = scheme_named(name, plan.serving.dtype)
        yield from _if_better(plan, wanted, f"--quantization {name} on {size} x {plan.gpu.name}", scheme=scheme)


def _lighter_cache(plan: Plan, wanted: int) -> Iterator[str]:
    size = plan.serving.tensor_parallel_size
    if plan.serving.kv_bytes > 1 and plan.gpu.has_fp8:
        yield from _if_better(plan, wanted, f"--kv-cache-dtype fp8 on {size} x {plan.gpu.name}", kv_cache_dtype="fp8")


def _if_better(plan: Plan, wanted: int, words: str, **changes: Any) -> Iterator[str]:
    """A sentence if these changes make it fit, or make room for more sequences of the same context or a longer one."""
    other = plan_on(plan.facts, replace(plan.serving, **changes), plan.gpu)
    length = plan.context or other.context
    if not other.fits or other.guaranteed(length) < plan.guaranteed(length):
        return
    if other.longest_context > plan.longest_context or other.guaranteed(length) > plan.guaranteed(length):
        length = length if plan.fits and other.guaranteed(length) > plan.guaranteed(length) else other.context
        yield f"{words}: {holds(other, length, wanted)}"


def _is_quantized(plan: Plan) -> bool:
    stored = plan.facts.stored
    return plan.serving.scheme is not None or plan.facts.scheme is not None or not (stored is None or stored.is_float)


def _smaller_gpu(plan: Plan, demand: Demand) -> Iterator[str]:
    """A GPU with less memory that lighter weights would do on, for the same context and as many sequences."""
    for name in _SMALLER if plan.fits and not _is_quantized(plan) else ():
        scheme = scheme_named(name, plan.serving.dtype)
        serving = replace(plan.serving, scheme=scheme, max_model_len=plan.context, tensor_parallel_size=1)
        best = next(iter(choices(plan.facts, serving, demand)), None)
        if best is not None and weighted_bytes(best) < weighted_bytes(plan):
            size = best.serving.tensor_parallel_size
            yield f"--quantization {name} would fit {size} x {best.gpu.name}: {holds(best, best.context)}"
