"""What this version's engine does not take of a plan, in the words of a command line."""

from collections.abc import Mapping

from headrace.cli.python_words import as_flags
from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.planner.facts import ModelFacts
from headrace.planner.families import FAMILIES


def engine_refusal(facts: ModelFacts, arguments: Mapping[str, object]) -> str | None:
    """What the engine says to a model and to `arguments`, as one sentence or two; None if it takes them."""
    served = [family.model_type for family in FAMILIES]
    if facts.outline.model_type not in (*served, *(family.architecture for family in FAMILIES)):
        return f"models of type {facts.outline.model_type}; it serves {', '.join(served)}"
    if facts.scheme is not None:
        return f"{facts.scheme.name} checkpoints; it quantizes the plain one while it loads: --quantization int8"
    if (size := arguments.get("tensor_parallel_size", 1)) != 1:
        return f"--tensor-parallel-size {size}; it serves on one GPU, --quantization int8 if the model does not fit it"
    if arguments.get("device") == "cpu" and (cache := arguments.get("kv_cache_dtype", "auto")) != "auto":
        return f"--kv-cache-dtype {cache} on a CPU, which keeps the cache as the activations are; leave it out"
    try:
        EngineConfig.from_kwargs(**arguments)
    except HeadraceError as error:
        return str(as_flags(error))
    return None
