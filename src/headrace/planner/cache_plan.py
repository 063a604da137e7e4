"""How many KV blocks there are, and how long a context they hold: what the engine makes of a memory plan, or refuses.

A context that was asked for and does not fit is refused with the budget and the flag that cures it; one that nobody
asked for is shortened, and the plan's lines say so.
"""

from dataclasses import dataclass

from headrace.core.errors import HeadraceError
from headrace.planner.cures import cure_of
from headrace.planner.lines import MemoryLine
from headrace.planner.memory import GIB
from headrace.planner.memory_plan import MemoryPlan

_SMALL_SHARE = 0.01
"""Lines below this share of the sum are given together."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """The outcome. `max_concurrency_at_full_length` is how many sequences of `max_model_len` tokens fit at once.

    `lines` explain it to a person, one (label, text) pair a line.
    """

    num_blocks: int
    max_model_len: int
    max_concurrency_at_full_length: float
    lines: tuple[tuple[str, str], ...]


def plan_cache(plan: MemoryPlan) -> CachePlan:
    """The cache of a plan. Raises `HeadraceError`, with the budget and a cure that works, if the plan does not fit."""
    if not plan.fits:
        raise _refusal(plan)
    concurrency = plan.num_blocks / plan.blocks_of(plan.context)
    size = plan.num_blocks * plan.block_bytes
    lines = (
        ("Memory", f"{_sum(plan)}; KV cache {_gib(size)}"),
        ("KV cache", f"{plan.num_blocks:,} blocks of {plan.serving.block_size} tokens, {_gib(size)} GiB"),
        ("Longest context", _context(plan)),
        ("At once", f"{concurrency:.1f} sequences of full length"),
    )
    return CachePlan(plan.num_blocks, plan.context, concurrency, lines)


def _context(plan: MemoryPlan) -> str:
    longest, text = plan.facts.outline.longest_context, f"{plan.context:,} tokens"
    if plan.serving.max_model_len is not None or plan.context == longest:
        return text
    grows_by = "--kv-cache-memory-bytes" if plan.memory.on_cpu else "--gpu-memory-utilization"
    return f"{text} (the model reaches {longest:,}; a larger {grows_by} makes room for them)"


def _refusal(plan: MemoryPlan) -> HeadraceError:
    what, param, needed = _what(plan)
    return HeadraceError(what, rule=f"{_sum(plan)}; {needed}", fix=cure_of(plan), param=param)


def _what(plan: MemoryPlan) -> tuple[str, str, str]:
    """What does not fit, the argument at fault, and what that needs."""
    serving, size = plan.serving, _gib(plan.kv_bytes)
    too_large, block = plan.kv_bytes > plan.room_bytes, _gib(plan.block_bytes)
    if serving.num_gpu_blocks_override is not None and too_large:
        blocks = serving.num_gpu_blocks_override
        return f"num_gpu_blocks_override is {blocks}", "num_gpu_blocks_override", f"{blocks} blocks need {size} GiB"
    if serving.kv_cache_memory_bytes is not None and too_large:
        nbytes = serving.kv_cache_memory_bytes
        return f"kv_cache_memory_bytes is {nbytes}", "kv_cache_memory_bytes", f"the KV cache needs {size} GiB"
    needed = f"one block of the KV cache needs {block} GiB"
    if serving.max_model_len is not None:
        needed = f"--max-model-len {plan.context} needs {_gib(plan.reserved_bytes(plan.context))} GiB"
    if plan.room_bytes < plan.block_bytes:
        device = "in memory" if plan.memory.on_cpu else "this GPU"
        return f"The model does not fit {device}", "model", needed
    if serving.max_model_len is None:
        return "Not one block of the KV cache fits", "kv_cache_memory_bytes", needed
    what, held = f"max_model_len is {plan.context}, which does not fit the KV cache", _gib(plan.kv_bytes)
    return what, "max_model_len", f"{needed}, and the KV cache has {held}"


def _sum(plan: MemoryPlan) -> str:
    """All that is spoken for, as a sum: "weights 14.9 + activations 2.1 = 17.0 of 22.0 GiB allowed"."""
    large = [line for line in plan.lines if line.nbytes >= _SMALL_SHARE * plan.fixed_bytes]
    parts = [_term(line) for line in large]
    if small := plan.fixed_bytes - sum(line.nbytes for line in large):
        parts.append(f"the rest {_gib(small)}")
    where = "available" if plan.memory.on_cpu else "allowed"
    return f"{' + '.join(parts)} = {_gib(plan.fixed_bytes)} of {_gib(plan.allowed_bytes)} GiB {where}"


def _term(line: MemoryLine) -> str:
    label = line.label if line.label.startswith("CUDA") else line.label[0].lower() + line.label[1:]
    return f"{label} {_gib(line.nbytes)}" + (f" ({line.who})" if line.who else "")


def _gib(num_bytes: int) -> str:
    gib = num_bytes / GIB
    return f"{gib:.1f}" if gib >= 10 or gib == 0 else f"{gib:.2f}" if gib >= 0.1 else f"{gib:.2g}"
