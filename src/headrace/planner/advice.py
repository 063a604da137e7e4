"""What to type, what lighter weights, a lighter cache or a shorter context would change, and what a GPU cannot do."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from headrace.planner.choose import Demand, choices, nearest, weighted_bytes
from headrace.planner.formats import scheme_named
from headrace.planner.memory import GIB
from headrace.planner.memory_plan import MemoryPlan
from headrace.planner.plan import Plan, plan_on
from headrace.planner.tensor_parallel import divides

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
    lines = [*_misfit(plan)] if not plan.fits else [*_crowd(plan, demand)]
    return [*lines, *_lighter(plan), *_lighter_cache(plan), *_smaller_gpu(plan, demand), *plan.gpu.limits]


def nothing_fits(plan: Plan) -> list[str]:
    """For a model that no known GPU serves: the nearest, what it lacks, and what would make it fit."""
    closest = nearest(plan.facts, plan.serving)
    size = closest.serving.tensor_parallel_size
    return [
        f"No known GPU serves this; the nearest is {size} x {closest.gpu.name}: {shortfall(closest)}",
        *_lighter(closest),
        *_lighter_cache(closest),
    ]


def shortfall(plan: Plan) -> str:
    """What is missing on each GPU, in words."""
    length = plan.serving.max_model_len
    cache = "" if length is None else f" and {plan.reserved_bytes(length) / GIB:.2f} GiB for {length:,} tokens"
    used, allowed = plan.fixed_bytes / GIB, plan.allowed_bytes / GIB
    return f"{used:.1f} GiB without the KV cache{cache}, of {allowed:.1f} GiB allowed"


def _misfit(plan: Plan) -> Iterator[str]:
    yield f"It does not fit: {shortfall(plan)}"
    if plan.longest_context > 0:
        yield f"--max-model-len {plan.longest_context} is the longest context that fits"
    for size in (2, 4, 8):
        larger = replace(plan.serving, tensor_parallel_size=size)
        if size <= plan.serving.tensor_parallel_size or not divides(plan.facts.outline, size):
            continue
        if (other := plan_on(plan.facts, larger, plan.gpu)).fits:
            yield f"--tensor-parallel-size {size} fits: {_holds(other, other.context)}"
            return


def _crowd(plan: Plan, demand: Demand) -> Iterator[str]:
    """What it does not do although it fits."""
    wanted, held = demand.concurrency, plan.guaranteed(plan.context)
    if held < wanted:
        shorter = plan.num_blocks // wanted * plan.serving.block_size
        yield f"{held} sequences of {plan.context:,} tokens fit at once, not {wanted}; at {shorter:,} tokens they do"
    yield from (f"Predicted: {miss}" for miss in demand.misses(plan))


def _lighter(plan: Plan) -> Iterator[str]:
    """What other weights would make of it, where the checkpoint is not quantized yet."""
    size = plan.serving.tensor_parallel_size
    if plan.serving.dtype == "float32" and not _is_quantized(plan):
        yield from _if_better(plan, f"--dtype bfloat16 on {size} x {plan.gpu.name}", dtype="bfloat16")
    for name in () if _is_quantized(plan) else _SMALLER:
        scheme = scheme_named(name, plan.serving.dtype)
        yield from _if_better(plan, f"--quantization {name} on {size} x {plan.gpu.name}", scheme=scheme)


def _lighter_cache(plan: Plan) -> Iterator[str]:
    if plan.serving.kv_bytes > 1 and plan.gpu.has_fp8:
        yield from _if_better(plan, "--kv-cache-dtype fp8", kv_cache_dtype="fp8")


def _if_better(plan: Plan, words: str, **changes: Any) -> Iterator[str]:
    """A sentence if these changes make it fit, or make room for more sequences of the same context or a longer one."""
    other = plan_on(plan.facts, replace(plan.serving, **changes), plan.gpu)
    length = plan.context or other.context
    if not other.fits or other.guaranteed(length) < plan.guaranteed(length):
        return
    if other.longest_context > plan.longest_context or other.guaranteed(length) > plan.guaranteed(length):
        length = length if plan.fits and other.guaranteed(length) > plan.guaranteed(length) else other.context
        yield f"{words}: {_holds(other, length)}"


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
            yield f"--quantization {name} would fit {size} x {best.gpu.name}: {_holds(best, best.context)}"


def _holds(plan: Plan, length: int) -> str:
    count = plan.guaranteed(length)
    return f"{count} sequence{'s' if count != 1 else ''} of {length:,} tokens at once"
