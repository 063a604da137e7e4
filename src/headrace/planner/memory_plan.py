"""A model in a device's memory: what fills it, whether that fits, and how long a context and how many blocks it holds.

The engine and `headrace plan` both decide by this; nothing is allocated before.
"""

from dataclasses import dataclass
from functools import cached_property

from headrace.core.errors import HeadraceError
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.facts import ModelFacts
from headrace.planner.lines import MemoryLine, fixed_lines, rotary_line
from headrace.planner.memory import cpu_kv_budget, ideal_kv_bytes, kv_bytes_per_token, rotary_bytes
from headrace.planner.serving import Serving

_EXPECTED_SHARE = 0.75


@dataclass(frozen=True)
class MemoryPlan:
    """The arithmetic for one device, or for each of `serving.tensor_parallel_size` alike; bytes are those of each.

    `fixed` are the lines that do not depend on the context.
    """

    facts: ModelFacts
    serving: Serving
    memory: DeviceMemory
    fixed: tuple[MemoryLine, ...]

    @property
    def allowed_bytes(self) -> int:
        """What may be used."""
        return self.memory.allowed_bytes(self.serving.gpu_memory_utilization)

    @cached_property
    def lines(self) -> tuple[MemoryLine, ...]:
        """Everything but the KV cache."""
        table = rotary_line(self.facts.outline, self.context)
        return self.fixed if table is None else (*self.fixed, table)

    @property
    def fixed_bytes(self) -> int:
        """Everything but the KV cache."""
        return sum(line.nbytes for line in self.lines)

    @property
    def room_bytes(self) -> int:
        """What is left for the KV cache; negative where the rest does not fit."""
        return self.allowed_bytes - self.fixed_bytes

    @property
    def kv_bytes(self) -> int:
        """What the KV cache gets: its size as it was asked for, or all that is left; on a CPU a bounded share."""
        serving = self.serving
        if serving.num_gpu_blocks_override is not None:
            return serving.num_gpu_blocks_override * self.block_bytes
        if serving.kv_cache_memory_bytes is not None:
            return serving.kv_cache_memory_bytes
        return min(self.room_bytes, self._kv_limit)

    @cached_property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token on each device, the draft model's too."""
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
        """Blocks that fit; on a CPU, unless the size was asked for, no more than all sequences fill."""
        if not self.block_bytes:
            return 0
        count = max(0, self.kv_bytes) // self.block_bytes
        if self.memory.on_cpu and not self.serving.kv_asked_for:
            return min(count, self.serving.max_num_seqs * self.blocks_of(self.context))
        return count

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache holds."""
        return self.num_blocks * self.serving.block_size

    @cached_property
    def longest_context(self) -> int:
        """The longest sequence: what fits with its rotary table, or what the model reaches if that is less."""
        if not self.block_bytes:
            return 0
        serving, fixed = self.serving, sum(line.nbytes for line in self.fixed)
        room = max(0, self.allowed_bytes - fixed)
        with_table = self.block_bytes + serving.block_size * rotary_bytes(self.facts.outline, 1)
        blocks = min(room // with_table, self._kv_limit // self.block_bytes)
        if serving.num_gpu_blocks_override is not None:
            blocks = serving.num_gpu_blocks_override
        elif serving.kv_cache_memory_bytes is not None:
            blocks = serving.kv_cache_memory_bytes // self.block_bytes
        return min(blocks * serving.block_size, self.facts.outline.longest_context)

    @property
    def context(self) -> int:
        """The context that is planned for: the one asked for, else the longest that fits."""
        return self.serving.max_model_len or self.longest_context

    @property
    def fits(self) -> bool:
        """Whether everything fits, and one sequence of the context."""
        return self.kv_bytes <= self.room_bytes and 0 < self.context <= self.cache_tokens

    def blocks_of(self, num_tokens: int) -> int:
        """Blocks that a sequence of this length holds."""
        return -(-num_tokens // self.serving.block_size)

    def held(self, num_tokens: int) -> int:
        """Sequences of this length that the cache holds at once, all full."""
        return self.num_blocks // max(1, self.blocks_of(num_tokens))

    def guaranteed(self, num_tokens: int) -> int:
        """Sequences of this length that run at once, all full: what the cache holds, and no more than may run."""
        return min(self.serving.max_num_seqs, self.held(num_tokens))

    def expected(self, num_tokens: int) -> int:
        """Sequences at once where half of the tokens are prompt and half are answer, on average half written."""
        return min(self.serving.max_num_seqs, self.held(int(num_tokens * _EXPECTED_SHARE)))

    def reserved_bytes(self, num_tokens: int) -> int:
        """What one sequence of this length takes as the engine keeps it: whole blocks, all layers alike."""
        return self.blocks_of(num_tokens) * self.block_bytes

    def ideal_bytes(self, num_tokens: int) -> int:
        """What one sequence must keep: no blocks, and layers with a window only that."""
        serving = self.serving
        return ideal_kv_bytes(self.facts.outline, num_tokens, serving.kv_bytes, serving.tensor_parallel_size)

    @property
    def _kv_limit(self) -> int:
        """The most that the cache takes when nobody named its size: of a GPU everything, of a host a share."""
        return cpu_kv_budget(self.memory.total_bytes) if self.memory.on_cpu else self.memory.total_bytes


def memory_plan(facts: ModelFacts, serving: Serving, memory: DeviceMemory) -> MemoryPlan:
    """The plan for a device. Raises `HeadraceError` for a context beyond the model; one that does not fit is a plan."""
    check_context(facts, serving)
    return MemoryPlan(facts, serving, memory, fixed_lines(facts, serving, memory))


def check_context(facts: ModelFacts, serving: Serving) -> None:
    """Raise `HeadraceError` for a context that the model's positions do not reach."""
    longest = facts.outline.longest_context
    if serving.max_model_len is not None and serving.max_model_len > longest:
        raise HeadraceError(
            f"max_model_len is {serving.max_model_len}",
            rule=f"The model's positions reach {longest} tokens",
            fix=f"Use --max-model-len {longest}",
            param="max_model_len",
        )
