"""The budget on a GPU: what the share of it that may be used leaves for the cache, decided before it is allocated."""

import math
from dataclasses import dataclass, replace

from headrace.core.errors import HeadraceError
from headrace.planner.cache_plan import MemoryBudget, too_big
from headrace.planner.estimates import FRAGMENTED_SHARE, GRAPHS_BYTES

_LARGEST_SHARE = 0.97


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What a GPU has, and what of it was free before the model came; `others` are the processes on it, (pid, bytes).

    This process's own CUDA context is among what is not free.
    """

    total_bytes: int
    free_bytes: int
    others: tuple[tuple[int, int], ...] = ()

    @property
    def taken_bytes(self) -> int:
        """What was taken already."""
        return self.total_bytes - self.free_bytes

    @property
    def takers(self) -> str:
        """Who took it, in words."""
        pids = ", ".join(str(pid) for pid, _ in self.others)
        return f"CUDA context and other processes (pid {pids})" if pids else "CUDA context and other processes"


def gpu_budget(
    memory: DeviceMemory,
    share: float,
    weight_bytes: int,
    activation_bytes: int,
    *,
    graphs: bool,
    least_kv_bytes: int = 1,
    kv_cache_memory_bytes: int | None = None,
) -> MemoryBudget:
    """The budget within `share` (--gpu-memory-utilization) of a GPU, all that is left of it for the cache.

    `least_kv_bytes` is the smallest cache that is of use. Raises `HeadraceError`, with a cure that works, when that or
    a cache of the size that was asked for does not fit.
    """
    overheads = [(memory.takers, memory.taken_bytes), ("fragmentation", int(activation_bytes * FRAGMENTED_SHARE.value))]
    if graphs:
        overheads.append(("CUDA graphs", int(GRAPHS_BYTES.value)))
    allowed = int(memory.total_bytes * share)
    budget = MemoryBudget(
        allowed, weight_bytes, activation_bytes, 0, overheads=tuple(overheads), grows_by="--gpu-memory-utilization"
    )
    if budget.free_bytes < least_kv_bytes:
        raise _no_room(memory, budget, least_kv_bytes)
    if kv_cache_memory_bytes is None:
        return replace(budget, kv_bytes=budget.free_bytes)
    budget = replace(budget, kv_bytes=kv_cache_memory_bytes, kv_asked_for=True)
    if kv_cache_memory_bytes > budget.free_bytes:
        fix = f"Use --kv-cache-memory-bytes {budget.free_bytes}"
        what = f"kv_cache_memory_bytes is {kv_cache_memory_bytes}"
        raise too_big(what, budget, kv_cache_memory_bytes, fix, param="kv_cache_memory_bytes")
    return budget


def _no_room(memory: DeviceMemory, budget: MemoryBudget, least: int) -> HeadraceError:
    needed = budget.available_bytes - budget.free_bytes + least
    share = math.ceil(needed / memory.total_bytes * 100) / 100
    if share <= _LARGEST_SHARE:
        fix = f"Use --gpu-memory-utilization {share:g}"
    elif memory.others and needed - memory.taken_bytes <= budget.available_bytes:
        fix = f"End the processes {', '.join(str(pid) for pid, _ in memory.others)}, or use another GPU"
    elif budget.activation_bytes > budget.weight_bytes:
        fix = "Use a smaller --max-num-seqs, or a smaller --max-num-batched-tokens"
    else:
        fix = "Use --quantization int8, a smaller model or a larger GPU (`headrace plan` names one)"
    return too_big("The model does not fit this GPU", budget, least, fix, param="gpu_memory_utilization")
