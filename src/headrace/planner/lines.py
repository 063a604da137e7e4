"""What is on a device beside the KV cache: one line an item, with its bytes and the formula that gave them."""

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.planner.device_memory import DeviceMemory
from headrace.planner.estimates import (
    COLLECTIVES_BYTES,
    CONTEXT_BYTES,
    EDITED_BYTES,
    FRAGMENTED_SHARE,
    GRAPH_BYTES,
    GRAPH_LAYER_BYTES,
    PENALTY_BYTES,
    Estimate,
)
from headrace.planner.facts import ModelFacts
from headrace.planner.memory import logits_bytes, rotary_bytes, state_bytes, token_bytes, unpacked_bytes
from headrace.planner.outline.model import ModelOutline
from headrace.planner.serving import LoraSlots, Serving
from headrace.planner.step_sizes import EDITED_ROWS, MOST_GRAPHED_TOKENS, graph_count

_LORA_BYTES = 2


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """One item on one device. `source` is empty where the bytes follow from the model, else where the estimate is from.

    `who` names those that hold it, where it is not us.
    """

    label: str
    nbytes: int
    formula: str
    source: str = ""
    who: str = ""

    @property
    def is_estimate(self) -> bool:
        """Whether a constant in it was neither derived nor measured."""
        return self.source.startswith("estimate")


def fixed_lines(facts: ModelFacts, serving: Serving, memory: DeviceMemory) -> tuple[MemoryLine, ...]:
    """All lines but the KV cache and the rotary table, which depend on the context; largest concern first."""
    outline, shards = facts.outline, serving.tensor_parallel_size
    weights, formula = facts.weight_bytes(serving.scheme, serving.dtype, shards, on_cpu=memory.on_cpu)
    lines = (MemoryLine("Weights", weights, formula), *_optional(outline, serving))
    if memory.on_cpu:
        return (*lines, _step_on_a_cpu(outline, serving))
    return (*lines, *_step(outline, serving), *_of_the_gpu(outline, serving), *_held_already(memory))


def rotary_line(outline: ModelOutline, num_positions: int) -> MemoryLine | None:
    """The cosines and sines of every position of the context; None where there are none."""
    nbytes = rotary_bytes(outline, num_positions)
    formula = f"{num_positions:,} positions x {rotary_bytes(outline, 1)} bytes of fp32 cosines and sines"
    return MemoryLine("Rotary table", nbytes, formula) if nbytes else None


def _step_on_a_cpu(outline: ModelOutline, serving: Serving) -> MemoryLine:
    """Activations of all tokens or, after these are let go, logits and sampling beside the hidden states."""
    tokens, rows, size = serving.max_num_batched_tokens, serving.max_num_seqs, serving.dtype_bytes
    activations, sampling = tokens * token_bytes(outline, size), logits_bytes(outline, rows)
    hidden = tokens * outline.hidden_size * size
    if activations >= hidden + sampling:
        return MemoryLine("Activations", activations, _token_formula(outline, serving))
    formula = f"4 x {rows:,} sequences x {outline.vocab_size:,} x 4 bytes + {tokens:,} tokens' hidden states"
    return MemoryLine("Logits and sampling", hidden + sampling, formula)


def _step(outline: ModelOutline, serving: Serving) -> Iterator[MemoryLine]:
    """The step's buffers on a GPU, which all are there at once."""
    tokens, rows, shards = serving.max_num_batched_tokens, serving.max_num_seqs, serving.tensor_parallel_size
    each, size = token_bytes(outline, serving.dtype_bytes, shards), serving.dtype_bytes
    yield MemoryLine("Activations", tokens * each, _token_formula(outline, serving))
    yield _sampling(outline, rows, size)
    if serving.scheme is not None and (nbytes := unpacked_bytes(outline, serving.scheme) // shards):
        yield MemoryLine("Unpacked weights", nbytes, f"the largest linear layer of {serving.scheme.name}, as floats")


def _sampling(outline: ModelOutline, rows: int, size: int) -> MemoryLine:
    """The logits of each sequence and its counts, and the few rows that are edited at a time."""
    counts, edited = int(PENALTY_BYTES.value), int(EDITED_BYTES.value)
    nbytes = outline.vocab_size * (rows * (size + counts) + EDITED_ROWS * edited)
    formula = f"{outline.vocab_size:,} x ({rows:,} sequences x ({size} + {counts}) + {EDITED_ROWS} x {edited}) bytes"
    return MemoryLine("Logits and sampling", nbytes, formula, EDITED_BYTES.text)


def _token_formula(outline: ModelOutline, serving: Serving) -> str:
    tokens, size, shards = serving.max_num_batched_tokens, serving.dtype_bytes, serving.tensor_parallel_size
    inside, share = max(layer.width for layer, _ in outline.kinds), f" / {shards}" if shards > 1 else ""
    return f"{tokens:,} tokens x ({outline.hidden_size:,} x {4 + 2 * size} + {inside:,}{share} x {size}) bytes"


def _of_the_gpu(outline: ModelOutline, serving: Serving) -> Iterator[MemoryLine]:
    """What CUDA itself takes."""
    step = list(_step(outline, serving))
    lost, of = sum(line.nbytes for line in step), " + ".join(line.label for line in step)
    yield _constant("CUDA context", CONTEXT_BYTES)
    if not serving.enforce_eager:
        yield _graphs(outline, serving)
    if serving.tensor_parallel_size > 1:
        yield _constant("Collectives", COLLECTIVES_BYTES)
    share = FRAGMENTED_SHARE.value
    yield MemoryLine("Fragmentation", int(lost * share), f"{share:.1%} of {of}", FRAGMENTED_SHARE.text)


def _constant(label: str, estimate: Estimate) -> MemoryLine:
    """The same for every model."""
    return MemoryLine(label, int(estimate.value), f"{int(estimate.value):,} bytes for any model", estimate.text)


def _graphs(outline: ModelOutline, serving: Serving) -> MemoryLine:
    """The graphs themselves, and the memory of the largest step that is captured, which no other step can use."""
    count, layers = graph_count(serving.max_num_seqs, serving.max_num_batched_tokens), outline.num_layers
    tokens = min(MOST_GRAPHED_TOKENS, serving.max_num_batched_tokens)
    graph, layer = int(GRAPH_BYTES.value), int(GRAPH_LAYER_BYTES.value)
    graphs = (count.passes + count.samplings) * graph + count.passes * layers * layer
    activations = tokens * token_bytes(outline, serving.dtype_bytes, serving.tensor_parallel_size)
    formula = (
        f"{count.passes + count.samplings} graphs x {graph:,} bytes + {count.passes} of them x {layers} layers x "
        f"{layer:,} bytes + the activations of {tokens:,} tokens"
    )
    return MemoryLine("CUDA graphs", graphs + activations, formula, GRAPH_LAYER_BYTES.text)


def _held_already(memory: DeviceMemory) -> Iterator[MemoryLine]:
    if memory.own_bytes:
        models = ", ".join(memory.own_models)
        who = f"with {models}, not closed" if models else ""
        source = "torch.cuda.memory_allocated() before the start"
        yield MemoryLine("This process's tensors", memory.own_bytes, source, who=who)
    if memory.others_bytes:
        pids = f"pid {', '.join(map(str, memory.pids))}" if memory.pids else ""
        yield MemoryLine("Other processes", memory.others_bytes, "taken before the start", who=pids)


def _optional(outline: ModelOutline, serving: Serving) -> Iterator[MemoryLine]:
    shards = serving.tensor_parallel_size
    if states := state_bytes(outline, serving.dtype_bytes, shards):
        formula = f"{serving.max_num_seqs:,} sequences x {states:,} bytes of linear attention's state"
        yield MemoryLine("Recurrent states", serving.max_num_seqs * states, formula)
    if serving.lora is not None:
        yield _lora(outline, serving.lora, shards)
    if serving.draft is not None:
        nbytes, formula = serving.draft.weight_bytes(None, serving.dtype, shards)
        yield MemoryLine("Draft model", nbytes, formula)


def _lora(outline: ModelOutline, lora: LoraSlots, shards: int) -> MemoryLine:
    """Each slot has A `[rank, in]` and B `[out, rank]` for every linear layer but experts, whatever its adapter has."""
    linears = [matrix for matrix in outline.matrices if matrix.role == "linear"]
    width = sum(matrix.count * (matrix.rows + matrix.columns) for matrix in linears)
    nbytes = lora.num_slots * lora.rank * width * _LORA_BYTES // shards
    share = f" / {shards}" if shards > 1 else ""
    formula = f"{lora.num_slots} slots x rank {lora.rank} x {width:,} (inputs and outputs) x {_LORA_BYTES} bytes{share}"
    return MemoryLine("LoRA slots", nbytes, formula)
