"""What is on each GPU beside the KV cache: one line an item, with its bytes and the formula that gave them."""

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.planner.estimates import COLLECTIVES_BYTES, CONTEXT_BYTES, FRAGMENTED_SHARE, GRAPHS_BYTES
from headrace.planner.facts import ModelFacts
from headrace.planner.memory import logits_bytes, state_bytes, token_bytes
from headrace.planner.outline.model import ModelOutline
from headrace.planner.serving import LoraSlots, Serving

_LORA_BYTES = 2


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """One item on one GPU. `source` is empty where the bytes follow from the model, else where the estimate is from."""

    label: str
    nbytes: int
    formula: str
    source: str = ""


def fixed_lines(facts: ModelFacts, serving: Serving, *, graphs: bool = True) -> tuple[MemoryLine, ...]:
    """All lines but the KV cache, largest concern first; `graphs` says that the device captures CUDA graphs."""
    outline, shards = facts.outline, serving.tensor_parallel_size
    weights, formula = facts.weight_bytes(serving.scheme, serving.dtype, shards)
    lines = [MemoryLine("Weights", weights, formula), *_optional(outline, serving), *_step(outline, serving)]
    lost = sum(line.nbytes for line in lines if line.label in ("Activations", "Logits and sampling"))
    lines.append(MemoryLine("CUDA context", int(CONTEXT_BYTES.value), "a constant", CONTEXT_BYTES.text))
    if graphs and not serving.enforce_eager:
        lines.append(MemoryLine("CUDA graphs", int(GRAPHS_BYTES.value), "a constant", GRAPHS_BYTES.text))
    if shards > 1:
        lines.append(MemoryLine("Collectives", int(COLLECTIVES_BYTES.value), "a constant", COLLECTIVES_BYTES.text))
    share = FRAGMENTED_SHARE.value
    formula = f"{share:.1%} of activations and logits"
    return (*lines, MemoryLine("Fragmentation", int(lost * share), formula, FRAGMENTED_SHARE.text))


def _step(outline: ModelOutline, serving: Serving) -> Iterator[MemoryLine]:
    tokens, rows, shards = serving.max_num_batched_tokens, serving.max_num_seqs, serving.tensor_parallel_size
    each = token_bytes(outline, serving.dtype_bytes, shards)
    inside = max(layer.width for layer, _ in outline.kinds)
    share, size = f" / {shards}" if shards > 1 else "", serving.dtype_bytes
    formula = f"{tokens:,} tokens x ({outline.hidden_size:,} x {4 + 2 * size} + {inside:,}{share} x {size}) bytes"
    yield MemoryLine("Activations", tokens * each, formula)
    formula = f"4 x {rows:,} sequences x {outline.vocab_size:,} x 4 bytes"
    yield MemoryLine("Logits and sampling", logits_bytes(outline, rows), formula)


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
