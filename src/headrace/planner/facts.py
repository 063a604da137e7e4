"""What is known of a model before it is downloaded: its outline, what its files hold, and where that was read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headrace.core.gguf_header import GgufHeader
from headrace.planner.catalogue import KnownModel
from headrace.planner.formats import FLOAT_BITS, WeightScheme, float_scheme
from headrace.planner.gguf_config import ARCHITECTURES
from headrace.planner.gguf_weights import GgufWeights
from headrace.planner.memory import scheme_bytes
from headrace.planner.outline.from_config import outline_from_config
from headrace.planner.outline.from_gguf import outline_from_gguf
from headrace.planner.outline.model import ModelOutline
from headrace.planner.quantized_config import scheme_of_config
from headrace.planner.stored import StoredWeights, stored_in_gguf

_LOADED = ("auto", "none", "int8", "int4")
"""The forms of weights that the engine makes of a GGUF file."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model. `scheme` is how its checkpoint is quantized, None for plain floats.

    `stored` is there where headers were read, `header` for a GGUF file; `origin` says where everything comes from.
    """

    name: str
    outline: ModelOutline
    origin: str
    scheme: WeightScheme | None = None
    stored: StoredWeights | None = None
    header: GgufHeader | None = None
    notes: tuple[str, ...] = ()

    def weight_bytes(
        self, scheme: WeightScheme | None, dtype: str, num_shards: int = 1, *, on_cpu: bool = False
    ) -> tuple[int, str]:
        """What the weights take on each of `num_shards` devices, and the formula.

        `scheme` None keeps what the checkpoint has; its plain floats become `dtype`. On a CPU a float head lies in its
        kernels' order beside the table that it is tied to.
        """
        chosen = scheme or self.scheme or float_scheme(dtype)
        chosen = replace(chosen, splits_tie=chosen.splits_tie or (on_cpu and chosen.name == dtype))
        counted = scheme_bytes(self.outline, chosen, num_shards)
        share, over = counted / scheme_bytes(self.outline, chosen), ""
        if num_shards > 1:
            over = f", the largest share of {num_shards} GPUs"
        if self.header is not None and (loaded := _loaded(self.header, scheme, dtype, on_cpu)) is not None:
            return int(
                loaded * share
            ), f"{len(self.header.tensors)} tensors of the file, as the engine keeps each{over}"
        if chosen.splits_tie and self.outline.tie_word_embeddings:
            over = f", and the head that is tied to the table once more{over}"
        if scheme is None and self.stored is not None:
            nbytes = self._stored_bytes(self.stored, FLOAT_BITS[dtype] // 8)
            if chosen.splits_tie and self.outline.tie_word_embeddings:
                nbytes += scheme_bytes(self.outline, chosen) - scheme_bytes(self.outline, float_scheme(dtype))
            return int(nbytes * share), f"{self.stored.num_tensors} tensors in the files' headers{over}"
        return counted, f"{self.outline.parameters:,} parameters in {chosen.name}{over}"

    def _stored_bytes(self, stored: StoredWeights, float_bytes: int) -> float:
        """What the files hold, once plain floats have `float_bytes`; a head that is tied is not loaded twice."""
        scale = stored.elements * float_bytes / stored.nbytes if stored.is_float and stored.nbytes else 1.0
        head = stored.head_bytes if self.outline.tie_word_embeddings else 0
        return (stored.nbytes - head) * scale


def facts_from_config(name: str, config: Mapping[str, object], origin: str) -> ModelFacts:
    """The facts of a parsed config.json. Raises `HeadraceError` if it lacks what is needed."""
    outline = outline_from_config(config)
    scheme, notes = scheme_of_config(config)
    return ModelFacts(name, outline, origin, scheme, notes=(*outline.notes, *notes))


def facts_from_gguf(name: str, header: GgufHeader) -> ModelFacts:
    """The facts of a GGUF file, whose tensors are summed."""
    outline = outline_from_gguf(header)
    origin, stored = f"header of {header.path}", stored_in_gguf(header)
    return ModelFacts(name, outline, origin, stored=stored, header=header, notes=outline.notes)


def facts_of_known(known: KnownModel, name: str) -> ModelFacts:
    """The facts of a model of the built-in catalogue."""
    return facts_from_config(name, known.config, "built-in catalogue")


def with_stored(facts: ModelFacts, stored: StoredWeights, where: str) -> ModelFacts:
    """The facts with what the headers of the weights say."""
    return replace(facts, stored=stored, origin=f"{facts.origin} and {where}")


def _loaded(header: GgufHeader, scheme: WeightScheme | None, dtype: str, on_cpu: bool) -> int | None:
    """What the engine makes of a file that it serves, in a form that it makes; else None."""
    quantization = "auto" if scheme is None else "none" if scheme.name == dtype else scheme.name
    if header.scalars.get("general.architecture") not in ARCHITECTURES or quantization not in _LOADED:
        return None
    keeps = quantization == "int4" or (quantization == "auto" and on_cpu and dtype == "bfloat16")
    return GgufWeights(header, quantization, dtype, keeps_groups=keeps, packs_head=on_cpu).nbytes()
