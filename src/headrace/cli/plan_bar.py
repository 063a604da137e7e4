"""What fills a device's memory, as a bar of one line and as a line for each item below it, marked as in the bar."""

from rich.text import Text

from headrace.cli.paper import Paper
from headrace.planner.facts import ModelFacts
from headrace.planner.memory import GIB
from headrace.planner.memory_plan import MemoryPlan

_COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue", "white")
_SYMBOLS = "#=+*%@&o~^"
_WIDTH = 60


def origin_of(facts: ModelFacts) -> str:
    """Where what is known of a model was read, as it stands behind "from"."""
    return f"the {facts.origin}" if facts.origin.startswith("built-in") else facts.origin


def print_bar(paper: Paper, plan: MemoryPlan) -> None:
    """One cell for each sixtieth of the device's memory; what is beyond it is not drawn."""
    bar, filled, done = Text("  ["), 0, 0
    for position, (_, nbytes) in enumerate(_parts(plan)):
        done += nbytes
        end = min(_WIDTH, round(done / plan.memory.total_bytes * _WIDTH))
        bar.append(_symbol(position) * (end - filled), style=_colour(position))
        filled = max(filled, end)
    paper.line(bar.append("." * (_WIDTH - filled)).append("]"))


def print_items(paper: Paper, plan: MemoryPlan, *, explain: bool) -> None:
    """One line an item; with the formula and the source of each below it if wanted."""
    for position, (label, nbytes) in enumerate(_parts(plan)):
        mark = Text(f"  {_symbol(position)} ", style=_colour(position))
        paper.line(mark.append(f"{label:<22}{nbytes / GIB:8.2f} GiB", style="default"))
        for text in _explanation(plan, position) if explain else ():
            paper.sentence(text, indent="      ")


def print_capacity(paper: Paper, plan: MemoryPlan, *, explain: bool) -> None:
    """How long a context the cache holds, and how many at once; nothing where there is no cache."""
    if not plan.cache_tokens or plan.kv_bytes > plan.room_bytes:
        return
    paper.line()
    length = plan.context
    ideal, reserved = plan.ideal_bytes(length) / GIB, plan.reserved_bytes(length) / GIB
    paper.sentence(f"KV cache: {plan.cache_tokens:,} tokens of {plan.kv_bytes_per_token:,} bytes")
    paper.sentence(f"Longest context: {plan.longest_context:,} tokens")
    paper.sentence(
        f"At {length:,} tokens: {plan.guaranteed(length)} at once guaranteed, {plan.expected(length)} expected; "
        f"one takes {reserved:.2f} GiB" + (f" (it must keep {ideal:.2f})" if reserved > 1.02 * ideal else "")
    )
    if plan.held(length) > plan.serving.max_num_seqs:
        paper.sentence(f"(the cache holds {plan.held(length):,}; --max-num-seqs {plan.serving.max_num_seqs} may run)")
    if explain:
        paper.sentence(
            f"guaranteed: {plan.num_blocks:,} blocks of {plan.serving.block_size} tokens / "
            f"{plan.blocks_of(length):,} a sequence; expected: half prompt, half answer, the answer half written",
            indent="    ",
        )


def _parts(plan: MemoryPlan) -> list[tuple[str, int]]:
    return [*((line.label, line.nbytes) for line in plan.lines), ("KV cache", plan.num_blocks * plan.block_bytes)]


def _symbol(position: int) -> str:
    return _SYMBOLS[position % len(_SYMBOLS)]


def _colour(position: int) -> str:
    return _COLOURS[position % len(_COLOURS)]


def _explanation(plan: MemoryPlan, position: int) -> list[str]:
    """The formula, and the source where there is one."""
    if position < len(plan.lines):
        line = plan.lines[position]
        return [line.formula, *([line.source] if line.source else [])]
    return [f"{_kv_rule(plan)}; {_kv_formula(plan)}"]


def _kv_rule(plan: MemoryPlan) -> str:
    if plan.serving.kv_asked_for:
        return "as it was asked for"
    if plan.memory.on_cpu:
        return "at most 4 GiB, a quarter of what is free, and what all sequences fill: --kv-cache-memory-bytes for more"
    return f"what is left of {plan.allowed_bytes / GIB:.2f} GiB"


def _kv_formula(plan: MemoryPlan) -> str:
    share = f", on each of {plan.serving.tensor_parallel_size} GPUs" if plan.serving.tensor_parallel_size > 1 else ""
    layers, each = len(plan.facts.outline.attention_layers), plan.serving.kv_bytes
    return f"a token keeps {plan.kv_bytes_per_token:,} bytes: {layers} layers, {each} bytes an element{share}"
