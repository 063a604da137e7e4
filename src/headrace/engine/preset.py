"""What a preset makes of a memory plan, once the device and the model's reach are known."""

from dataclasses import replace

from headrace.core.config import EngineConfig
from headrace.core.presets import Preset, preset_named
from headrace.planner.memory_plan import MemoryPlan, memory_plan
from headrace.planner.serving import Serving


def within_preset(plan: MemoryPlan, config: EngineConfig) -> MemoryPlan:
    """The plan with the preset's context, and on a CPU its cache, where the configuration names none.

    A plan that does not fit stays as it is, for its refusal.
    """
    if config.preset is None or not plan.fits:
        return plan
    preset, serving = preset_named(config.preset), plan.serving
    if config.max_model_len is None:
        serving = replace(serving, max_model_len=min(preset.max_model_len, plan.context))
    if plan.memory.on_cpu and not serving.kv_asked_for:
        serving = replace(serving, kv_cache_memory_bytes=_cpu_cache(preset, plan, serving))
    return memory_plan(plan.facts, serving, plan.memory)


def preset_line(config: EngineConfig, plan: MemoryPlan) -> list[tuple[str, str]]:
    """A report's line that says what the preset has led to; none without one."""
    if config.preset is None:
        return []
    serving = plan.serving
    parts = [f"{plan.context:,} tokens", f"{serving.max_num_seqs} sequences"]
    parts.append(f"{serving.max_num_batched_tokens:,} tokens a step")
    if not plan.memory.on_cpu:
        parts.append(f"{serving.gpu_memory_utilization:.0%} of the GPU's memory")
    return [("Preset", f"{config.preset}: {', '.join(parts)}; an argument of your own replaces any of them")]


def _cpu_cache(preset: Preset, plan: MemoryPlan, serving: Serving) -> int:
    needed = plan.reserved_bytes(serving.max_model_len or plan.context)
    return min(max(preset.cpu_cache_bytes, needed), plan.kv_bytes)
