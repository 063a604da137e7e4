"""What an engine will be, decided from its configuration, the headers of the model's files and the device's memory.

Nothing big is allocated before the plan says that it fits.
"""

import torch

from headrace.core.config import EngineConfig
from headrace.engine.card import Card, look_at
from headrace.engine.loaded import EnginePlan
from headrace.engine.preset import within_preset
from headrace.engine.sched.scheduler import Limits
from headrace.engine.visible_gpus import resolve_device
from headrace.models.dtype import resolve_dtype, resolve_kv_dtype
from headrace.models.open import shape_of
from headrace.planner.cache_plan import plan_cache
from headrace.planner.facts import ModelFacts
from headrace.planner.formats import WeightScheme, scheme_named
from headrace.planner.memory_plan import memory_plan
from headrace.planner.outline.from_shape import outline_of
from headrace.planner.serving import Serving, default_batched_tokens
from headrace.planner.shape import ModelShape
from headrace.planner.stored import stored_in_gguf, stored_in_safetensors
from headrace.store.files import ModelFiles


def plan_engine(config: EngineConfig, files: ModelFiles, card: Card | None = None) -> EnginePlan:
    """Decide device, dtype, cache and limits. Raises `HeadraceError`, with a cure that works, for what does not fit.

    `card` is the device as it is; without one, that of the configuration is looked at.
    """
    card = card or look_at(resolve_device(config.device))
    shape = shape_of(files)
    dtype = resolve_dtype(config.dtype, shape, files.kind, None if card.has_bfloat16 else card.name)
    kv_dtype = resolve_kv_dtype(config.kv_cache_dtype, dtype, None if card.has_fp8 else card.name)
    serving = serving_of(config, card.memory.kind, dtype)
    memory = within_preset(memory_plan(_facts(files, shape), serving, card.memory), config)
    limits = Limits(serving.max_num_seqs, serving.max_num_batched_tokens, config.enable_chunked_prefill)
    return EnginePlan(config, files, shape, card.device, dtype, kv_dtype, plan_cache(memory), limits, memory)


def serving_of(config: EngineConfig, kind: str, dtype: torch.dtype) -> Serving:
    """A configuration as the planner has it, on a "cpu" or on "cuda"."""
    name = str(dtype).removeprefix("torch.")
    tokens = config.max_num_batched_tokens
    return Serving(
        max_model_len=config.max_model_len if isinstance(config.max_model_len, int) else None,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=default_batched_tokens(kind, config.max_num_seqs) if tokens is None else tokens,
        block_size=config.block_size,
        dtype=name,
        scheme=_scheme(config, name),
        gpu_memory_utilization=config.gpu_memory_utilization,
        kv_cache_memory_bytes=config.kv_cache_memory_bytes,
        kv_cache_dtype=config.kv_cache_dtype,
        num_gpu_blocks_override=config.num_gpu_blocks_override,
        enforce_eager=config.enforce_eager,
    )


def _scheme(config: EngineConfig, dtype: str) -> WeightScheme | None:
    return None if config.quantization == "auto" else scheme_named(config.quantization, dtype)


def _facts(files: ModelFiles, shape: ModelShape) -> ModelFacts:
    stored = None if files.header is None else stored_in_gguf(files.header)
    if files.kind == "safetensors":
        stored = stored_in_safetensors(files.weight_files)
    origin = f"the files of {files.name}"
    return ModelFacts(files.name, outline_of(shape), origin, stored=stored, header=files.header)
