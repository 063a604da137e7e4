"""How many KV blocks there are, and how long a context they hold: decided before anything is allocated.

A context that was asked for and does not fit is refused with the budget and the flag that cures it; one that nobody
asked for is shortened, and the plan's lines say so.
"""

from dataclasses import dataclass, replace
from typing import Literal

from headrace.core.errors import HeadraceError
from headrace.planner.memory import GIB, cpu_kv_budget, kv_block_bytes
from headrace.planner.outline.from_shape import longest_context
from headrace.planner.shape import ModelShape


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What there is and what is spoken for, in bytes. `kv_bytes` is what the cache may take of the rest.

    `kv_asked_for` says that the user named `kv_bytes`, and so gets all of it. `overheads` are what else is taken, by
    name; `grows_by` is the flag that makes room for a larger cache.
    """

    available_bytes: int
    weight_bytes: int
    activation_bytes: int
    kv_bytes: int
    kv_asked_for: bool = False
    overheads: tuple[tuple[str, int], ...] = ()
    grows_by: str = "--kv-cache-memory-bytes"

    @property
    def free_bytes(self) -> int:
        """What weights, activations and overheads leave; negative when they do not fit themselves."""
        taken = sum(nbytes for _, nbytes in self.overheads)
        return self.available_bytes - self.weight_bytes - self.activation_bytes - taken


@dataclass(frozen=True, slots=True)
class CachePlan:
    """The outcome. `max_concurrency_at_full_length` is how many sequences of `max_model_len` tokens fit at once.

    `lines` explain it to a person, one (label, text) pair a line.
    """

    num_blocks: int
    max_model_len: int
    max_concurrency_at_full_length: float
    lines: tuple[tuple[str, str], ...]


def cpu_budget(
    available_bytes: int, weight_bytes: int, activation_bytes: int, kv_cache_memory_bytes: int | None = None
) -> MemoryBudget:
    """The budget on a CPU; `available_bytes` is measured before the weights are loaded.

    Raises `HeadraceError` when the weights, or a KV cache of the size that was asked for, do not fit.
    """
    asked_for = kv_cache_memory_bytes is not None
    wanted = cpu_kv_budget(available_bytes) if kv_cache_memory_bytes is None else kv_cache_memory_bytes
    budget = MemoryBudget(available_bytes, weight_bytes, activation_bytes, wanted, asked_for)
    if budget.free_bytes <= 0:
        fix = "Use --quantization int8, or a smaller model"
        if activation_bytes > weight_bytes:
            fix = "Use a smaller --max-num-seqs, or a smaller --max-num-batched-tokens"
        raise too_big("The model does not fit in memory", budget, 0, fix)
    if wanted <= budget.free_bytes:
        return budget
    if not asked_for:
        return replace(budget, kv_bytes=budget.free_bytes)
    fix = f"Use --kv-cache-memory-bytes {budget.free_bytes}"
    raise too_big(f"kv_cache_memory_bytes is {wanted}", budget, wanted, fix, param="kv_cache_memory_bytes")


def plan_cache(
    shape: ModelShape,
    budget: MemoryBudget,
    *,
    block_size: int,
    kv_dtype_bytes: int,
    max_model_len: int | Literal["auto"] | None = None,
    max_num_seqs: int = 256,
    num_blocks_override: int | None = None,
) -> CachePlan:
    """Choose the number of blocks and the longest context.

    `max_model_len` None or "auto" is the model's own longest context, or what fits of it; an integer is kept or
    refused with `HeadraceError`. No more blocks are made than `max_num_seqs` full sequences fill, unless
    the user named the cache's size. `num_blocks_override` is taken as it is.
    """
    block = _Block(block_size, kv_block_bytes(shape, block_size, kv_dtype_bytes))
    overridden = num_blocks_override is not None
    num_blocks = budget.kv_bytes // block.nbytes if num_blocks_override is None else num_blocks_override
    if num_blocks == 0:
        raise _no_block(budget, block)
    if overridden and num_blocks * block.nbytes > budget.free_bytes:
        raise _too_many_blocks(num_blocks, budget, block)
    longest, fitting = longest_context(shape), num_blocks * block_size
    chosen = max_model_len if isinstance(max_model_len, int) else min(longest, fitting)
    if chosen > longest:
        raise beyond_the_model(chosen, longest)
    if chosen > fitting:
        raise _does_not_fit(chosen, fitting, budget, block, may_grow=not overridden)
    if not overridden and not budget.kv_asked_for:
        num_blocks = min(num_blocks, max_num_seqs * block.count(chosen))
    concurrency = num_blocks / block.count(chosen)
    context = f"{chosen:,} tokens"
    if chosen != max_model_len and chosen < longest:
        context += f" (the model reaches {longest:,}; a larger {budget.grows_by} makes room for them)"
    lines = (
        ("KV cache", f"{num_blocks:,} blocks of {block_size} tokens, {_gib(num_blocks * block.nbytes)} GiB"),
        ("Longest context", context),
        ("At once", f"{concurrency:.1f} sequences of full length"),
    )
    return CachePlan(num_blocks, chosen, concurrency, lines)


def _too_many_blocks(num_blocks: int, budget: MemoryBudget, block: "_Block") -> HeadraceError:
    fix = f"Use {budget.free_bytes // block.nbytes} blocks or fewer"
    what = f"num_gpu_blocks_override is {num_blocks}"
    return too_big(what, budget, num_blocks * block.nbytes, fix, param="num_gpu_blocks_override")


@dataclass(frozen=True, slots=True)
class _Block:
    tokens: int
    nbytes: int

    def count(self, tokens: int) -> int:
        """Blocks that a sequence of this length holds."""
        return -(-tokens // self.tokens)


def beyond_the_model(asked: int, longest: int) -> HeadraceError:
    """The refusal of a context that the model's positions do not reach."""
    return HeadraceError(
        f"max_model_len is {asked}",
        rule=f"The model's positions reach {longest} tokens",
        fix=f"Use --max-model-len {longest}",
        param="max_model_len",
    )


def _does_not_fit(asked: int, fitting: int, budget: MemoryBudget, block: _Block, *, may_grow: bool) -> HeadraceError:
    """The cure keeps the context that was asked for where memory allows a larger cache, and shortens it elsewhere."""
    needed = block.count(asked) * block.nbytes
    grows = may_grow and needed <= budget.free_bytes
    fix = f"Use --kv-cache-memory-bytes {needed}" if grows else f"Use --max-model-len {fitting}"
    return too_big(f"max_model_len is {asked}, which does not fit the KV cache", budget, needed, fix)


def _no_block(budget: MemoryBudget, block: _Block) -> HeadraceError:
    if block.nbytes <= budget.free_bytes:
        fix = f"Use --kv-cache-memory-bytes {block.nbytes}, or more: a block for each sequence at least"
    else:
        fix = "Use --quantization int8, or a smaller model"
    return too_big("Not one block of the KV cache fits", budget, block.nbytes, fix, param="kv_cache_memory_bytes")


def too_big(what: str, budget: MemoryBudget, needed: int, fix: str, param: str = "max_model_len") -> HeadraceError:
    """The refusal of what does not fit: the whole budget, and its cure."""
    parts = [
        f"weights {_gib(budget.weight_bytes)}",
        f"activations {_gib(budget.activation_bytes)}",
        *(f"{name} {_gib(nbytes)}" for name, nbytes in budget.overheads),
        f"KV cache needed {_gib(needed)}",
        f"KV cache allowed {_gib(budget.kv_bytes)}",
        f"memory available {_gib(budget.available_bytes)}",
    ]
    return HeadraceError(what, rule=f"The budget in GiB: {', '.join(parts)}", fix=fix, param=param)


def _gib(num_bytes: int) -> str:
    gib = num_bytes / GIB
    return f"{gib:.2f}" if gib >= 0.1 or gib == 0 else f"{gib:.2g}"
