"""A model on a GPU: what fills its memory, whether that fits, and what it then holds."""

from dataclasses import dataclass, replace
from functools import cached_property

from headrace.planner.cache_plan import beyond_the_model
from headrace.planner.facts import ModelFacts
from headrace.planner.gpus import Gpu
from headrace.planner.lines import MemoryLine, fixed_lines
from headrace.planner.memory import ideal_kv_bytes, kv_bytes_per_token
from headrace.planner.serving import Serving
from headrace.planner.tensor_parallel import check_tensor_parallel

_EXPECTED_SHARE = 0.75


@dataclass(frozen=True)
class Plan:
    """The outcome for one kind of GPU, `serving.tensor_parallel_size` of them. Bytes are those of each GPU."""

    facts: ModelFacts
    serving: Serving
    gpu: Gpu
    lines: tuple[MemoryLine, ...]

    @property
    def allowed_bytes(self) -> int:
        """What may be used: the share of the GPU's memory that was given."""
        return int(self.gpu.usable_bytes * self.serving.gpu_memory_utilization)

    @property
    def fixed_bytes(self) -> int:
        """Everything but the KV cache."""
        return sum(line.nbytes for line in self.lines)

    @property
    def kv_bytes(self) -> int:
        """What is left for the KV cache; negative where the rest does not fit."""
        return self.allowed_bytes - self.fixed_bytes

    @cached_property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token on each GPU, the draft model's too."""
        serving, outlines = self.serving, [self.facts.outline]
        if serving.draft is not None:
            outlines.append(serving.draft.outline)
        return sum(kv_bytes_per_token(each, serving.kv_bytes, serving.tensor_parallel_size) for each in outlines)

    @property
    def block_bytes(self) -> int:
        """One block of the cache."""
        return self.kv_bytes_per_token * self.serving.block_size

    @property
    def num_blocks(self) -> int:
        """Blocks that fit."""
        return max(0, self.kv_bytes) // self.block_bytes if self.block_bytes else 0

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache holds."""
        return self.num_blocks * self.serving.block_size

    @property
    def longest_context(self) -> int:
        """The longest sequence: what fits, or what the model reaches if that is less."""
        return min(self.cache_tokens, self.facts.outline.longest_context)

    @property
    def context(self) -> int:
        """The context that is planned for: the one asked for, else the longest that fits."""
        return self.serving.max_model_len or self.longest_context

    @property
    def fits(self) -> bool:
        """Whether one sequence of the context fits."""
        return 0 < self.context <= self.cache_tokens

    def blocks_of(self, num_tokens: int) -> int:
        """Blocks that a sequence of this length holds."""
        return -(-num_tokens // self.serving.block_size)

    def guaranteed(self, num_tokens: int) -> int:
        """Sequences of this length that fit at once, all full."""
        return self.num_blocks // max(1, self.blocks_of(num_tokens))

    def expected(self, num_tokens: int) -> int:
        """Sequences at once where half of the tokens are prompt and half are answer, on average half written."""
        return self.num_blocks // max(1, self.blocks_of(int(num_tokens * _EXPECTED_SHARE)))

    def reserved_bytes(self, num_tokens: int) -> int:
        """What one sequence of this length takes as the engine keeps it: whole blocks, all layers alike."""
        return self.blocks_of(num_tokens) * self.block_bytes

    def ideal_bytes(self, num_tokens: int) -> int:
        """What one sequence must keep: no blocks, and layers with a window only that."""
        serving = self.serving
        return ideal_kv_bytes(self.facts.outline, num_tokens, serving.kv_bytes, serving.tensor_parallel_size)


def plan_on(facts: ModelFacts, serving: Serving, gpu: Gpu) -> Plan:
    """The plan for a GPU. Raises `HeadraceError` for more GPUs than can share the model, or a context beyond it.

    Where the GPU has no bfloat16, float16 takes its place.
    """
    longest = facts.outline.longest_context
    if serving.max_model_len is not None and serving.max_model_len > longest:
        raise beyond_the_model(serving.max_model_len, longest)
    check_tensor_parallel(facts.outline, serving.tensor_parallel_size)
    if serving.dtype == "bfloat16" and not gpu.has_bfloat16:
        serving = replace(serving, dtype="float16")
    return Plan(facts, serving, gpu, fixed_lines(facts, serving))
