"""A loaded engine with what belongs to it, and what it says of itself."""

from dataclasses import dataclass

import msgspec
import torch

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.core.sampling_params import SamplingParams
from headrace.engine.engine import Engine
from headrace.engine.giving_back import return_memory
from headrace.engine.prompts import no_tokenizer
from headrace.engine.sched.scheduler import Limits
from headrace.planner.cache_plan import CachePlan
from headrace.planner.memory_plan import MemoryPlan
from headrace.planner.shape import ModelShape
from headrace.store.files import ModelFiles
from headrace.store.generation import eos_token_ids, generation_config, sampling_defaults
from headrace.text.tokenizer import Tokenizer
from headrace.wire.messages import Ready


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What will be built, decided from the config and the files' headers alone."""

    config: EngineConfig
    files: ModelFiles
    shape: ModelShape
    device: torch.device
    dtype: torch.dtype
    kv_dtype: torch.dtype
    cache: CachePlan
    limits: Limits
    memory: MemoryPlan

    @property
    def longest_context(self) -> int:
        """What the model reaches, in tokens; the cache may hold less."""
        return self.memory.facts.outline.longest_context


class LoadedEngine:
    """An engine with what belongs to it. `tokenizer` is there unless it was not wanted."""

    def __init__(
        self,
        plan: EnginePlan,
        engine: Engine,
        tokenizer: Tokenizer | None,
        report: list[tuple[str, str]],
        startup_seconds: dict[str, float],
    ) -> None:
        self.config = plan.config
        self.engine = engine
        self.report = report
        self._startup_seconds = startup_seconds
        self._cache_config = _cache_config(plan)
        generation = generation_config(plan.config.generation_config, plan.files)
        own_eos = None if tokenizer is None else tokenizer.eos_token_id
        self.eos_token_ids = eos_token_ids(generation, [*plan.shape.eos_token_ids, own_eos])
        self._sampling_defaults = sampling_defaults(generation)
        self._tokenizer = tokenizer
        self._device = plan.device
        self._closed = False

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises where the engine was loaded without one."""
        if self._tokenizer is None:
            raise no_tokenizer("This call needs one")
        return self._tokenizer

    @property
    def optional_tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None where the engine was loaded without one."""
        return self._tokenizer

    def default_sampling_params(self) -> SamplingParams:
        """vLLM's defaults with what the model's generation config says."""
        try:
            return msgspec.convert(self._sampling_defaults, SamplingParams)
        except msgspec.ValidationError as error:
            raise HeadraceError(
                f"The model's generation config cannot be used: {error}",
                fix="Use generation_config='vllm', or pass sampling_params",
                param="generation_config",
            ) from error

    def ready(self) -> Ready:
        """What the engine says of itself when it can take requests."""
        limits, batch = self.engine.limits, self.engine.scheduler.limits
        return Ready(
            max_model_len=limits.max_model_len,
            vocab_size=limits.vocab_size,
            report=self.report,
            max_num_seqs=batch.max_num_seqs,
            max_num_batched_tokens=batch.max_num_batched_tokens,
            cache_config=self._cache_config,
            startup_seconds=self._startup_seconds,
            longest_context=limits.longest_context,
        )

    def holds(self, device: torch.device) -> bool:
        """Whether it has memory of `device`: it runs there and is not closed."""
        return not self._closed and (self._device.type, self._device.index or 0) == (device.type, device.index or 0)

    def close(self) -> None:
        """Give back the model and the cache. Calling it again does nothing."""
        if not self._closed:
            self._closed = True
            self.engine.close()
            self._tokenizer = None
            return_memory()


def _cache_config(plan: EnginePlan) -> dict[str, str]:
    """The labels that vLLM gives its cache, as far as they mean something here; nothing is swapped to a CPU."""
    config = plan.config
    values: dict[str, object] = {
        "block_size": config.block_size,
        "cache_dtype": str(plan.kv_dtype).removeprefix("torch."),
        "enable_prefix_caching": config.enable_prefix_caching,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "kv_cache_memory_bytes": config.kv_cache_memory_bytes,
        "num_cpu_blocks": 0,
        "num_gpu_blocks": plan.cache.num_blocks,
        "num_gpu_blocks_override": config.num_gpu_blocks_override,
    }
    return {name: str(value) for name, value in values.items()}
