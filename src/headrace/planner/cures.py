"""The one flag that makes a plan fit that does not: each is tried by the same arithmetic before it is suggested.

What keeps the context that was asked for comes first; then a shorter one, if it is not much shorter; then lighter
weights; then whatever starts at all; then lighter weights with a shorter context or smaller steps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from headrace.planner.formats import scheme_named
from headrace.planner.memory import GIB
from headrace.planner.memory_plan import MemoryPlan, memory_plan
from headrace.planner.serving import default_batched_tokens

_LARGEST_SHARE = 0.97
_SMALLER_STEPS = (4096, 2048, 1024, 512, 256)
_FEWER_SEQUENCES = (256, 64, 16, 4, 1)
_USEFUL_TOKENS = 4096
"""A context that nobody asked for should be this long, where the model reaches it."""
_LEAST_SHARE = 0.25
"""A context that was asked for is not cut to less than this, if anything else helps."""


@dataclass(frozen=True, slots=True)
class Cure:
    """Flags, and the changes of `Serving` that they are."""

    flags: str
    changes: dict[str, Any]


def cure_of(plan: MemoryPlan) -> str:
    """What to do about a plan that does not fit, as an imperative sentence."""
    flags, held = flags_that_cure(plan), _held_by_us(plan)
    if flags is None:
        return held or _elsewhere(plan)
    return f"{held}. Or use {flags}" if held else f"Use {flags}"


def flags_that_cure(plan: MemoryPlan) -> str | None:
    """The flags that make a plan fit on the same device; None if there are none."""
    for least in (_wanted(plan), 1):
        for cure in _candidates(plan, least):
            if _serves(plan, cure, least):
                return cure.flags
    return next((cure.flags for cure in _pairs(plan) if _serves(plan, cure, 1)), None)


def _wanted(plan: MemoryPlan) -> int:
    """The shortest context that is of use."""
    asked = plan.serving.max_model_len
    return min(_USEFUL_TOKENS, plan.facts.outline.longest_context) if asked is None else math.ceil(asked * _LEAST_SHARE)


def _serves(plan: MemoryPlan, cure: Cure, least: int) -> bool:
    other = memory_plan(plan.facts, replace(plan.serving, **cure.changes), plan.memory)
    return other.fits and other.context >= least


def _candidates(plan: MemoryPlan, least: int) -> Iterator[Cure]:
    yield from _cache_sizes(plan, least)
    if not plan.memory.on_cpu:
        yield from _larger_shares(plan, least)
    yield from _smaller_steps(plan)
    yield from _shorter(plan)
    yield from _lighter_weights(plan)
    yield from _fewer_sequences(plan)


def _cache_sizes(plan: MemoryPlan, least: int) -> Iterator[Cure]:
    """Another size of the cache where it was named, and on a CPU, where it is bounded unless it is named."""
    length = plan.serving.max_model_len or least
    needed = plan.reserved_bytes(length)
    room = max(0, plan.room_bytes) // max(1, plan.block_bytes)
    if plan.serving.num_gpu_blocks_override is not None:
        least_blocks = plan.blocks_of(length)
        for blocks in (room, least_blocks) if plan.kv_bytes > plan.room_bytes else (least_blocks, room):
            yield Cure(f"--num-gpu-blocks-override {blocks}", {"num_gpu_blocks_override": max(1, blocks)})
    elif plan.serving.kv_cache_memory_bytes is not None or plan.memory.on_cpu:
        for nbytes in (room * plan.block_bytes, needed) if plan.kv_bytes > plan.room_bytes else (needed,):
            yield Cure(f"--kv-cache-memory-bytes {nbytes}", {"kv_cache_memory_bytes": max(1, nbytes)})


def _larger_shares(plan: MemoryPlan, least: int) -> Iterator[Cure]:
    length = plan.serving.max_model_len or least
    cache = plan.kv_bytes if plan.serving.kv_asked_for else plan.reserved_bytes(length)
    table = memory_plan(plan.facts, replace(plan.serving, max_model_len=length), plan.memory)
    first = math.ceil((table.fixed_bytes + cache) / plan.memory.total_bytes * 100)
    for hundredths in (first, first + 1):
        if plan.serving.gpu_memory_utilization < hundredths / 100 <= _LARGEST_SHARE:
            yield Cure(f"--gpu-memory-utilization {hundredths / 100:g}", {"gpu_memory_utilization": hundredths / 100})


def _shorter(plan: MemoryPlan) -> Iterator[Cure]:
    if plan.serving.max_model_len is not None and plan.longest_context:
        yield Cure(f"--max-model-len {plan.longest_context}", {"max_model_len": plan.longest_context})


def _smaller_steps(plan: MemoryPlan) -> Iterator[Cure]:
    now, rows = plan.serving.max_num_batched_tokens, plan.serving.max_num_seqs
    for tokens in _SMALLER_STEPS:
        if rows <= tokens < now:
            yield Cure(f"--max-num-batched-tokens {tokens}", {"max_num_batched_tokens": tokens})


def _fewer_sequences(plan: MemoryPlan) -> Iterator[Cure]:
    """A step is at least as large as all sequences together, and no larger by default than it has to be."""
    kind, serving = plan.memory.kind, plan.serving
    chosen = serving.max_num_batched_tokens == default_batched_tokens(kind, serving.max_num_seqs)
    for rows in _FEWER_SEQUENCES:
        if rows < serving.max_num_seqs:
            tokens = default_batched_tokens(kind, rows) if chosen else serving.max_num_batched_tokens
            yield Cure(f"--max-num-seqs {rows}", {"max_num_seqs": rows, "max_num_batched_tokens": tokens})


def _lighter_weights(plan: MemoryPlan) -> Iterator[Cure]:
    """Forms that the engine makes while it loads, of a checkpoint that is not quantized in another way already."""
    if plan.facts.scheme is not None:
        return
    dtype = plan.serving.dtype
    if dtype == "float32":
        yield Cure("--dtype float16", {"dtype": "float16"})
    for name in ("int8", "int4"):
        if plan.serving.scheme is None or plan.serving.scheme.name not in ("int8", "int4"):
            yield Cure(f"--quantization {name}", {"scheme": scheme_named(name, dtype)})


def _pairs(plan: MemoryPlan) -> Iterator[Cure]:
    """Lighter weights together with smaller steps, or with the longest context that then fits."""
    for cure in _lighter_weights(plan):
        lighter = memory_plan(plan.facts, replace(plan.serving, **cure.changes), plan.memory)
        for other in (*_shorter(lighter), *_smaller_steps(plan), *_fewer_sequences(plan)):
            yield Cure(f"{cure.flags} {other.flags}", {**cure.changes, **other.changes})


def _held_by_us(plan: MemoryPlan) -> str:
    """What to let go of in this process, where the plan would fit without it."""
    memory = plan.memory
    if not memory.own_bytes or not memory_plan(plan.facts, plan.serving, memory.without_own).fits:
        return ""
    if memory.own_models:
        return f"Close what this process has loaded ({', '.join(memory.own_models)}): llm.close()"
    return "Let go of this process's own tensors: del them, then torch.cuda.empty_cache()"


def _elsewhere(plan: MemoryPlan) -> str:
    """What to do where no flag helps."""
    memory, serving = plan.memory, plan.serving
    if memory.others_bytes and memory_plan(plan.facts, serving, memory.alone).fits:
        who = f"the processes {', '.join(map(str, memory.pids))}" if memory.pids else "the other processes on this GPU"
        return f"End {who}, or use another GPU"
    least = math.ceil((plan.fixed_bytes + plan.reserved_bytes(_wanted(plan))) / GIB)
    if memory.on_cpu:
        return f"Use a smaller model, or a machine with {least} GiB free"
    least = math.ceil(least / serving.gpu_memory_utilization)
    return f"Use a smaller model, or a GPU with {least} GiB (`headrace plan {plan.facts.name}` names one)"
