"""The model families that are served."""

from dataclasses import dataclass

from headrace.core.errors import HeadraceError


@dataclass(frozen=True, slots=True)
class Family:
    """One family of decoders that the engine runs, with the defaults of its transformers configuration class.

    What its configuration says of dimensions, biases and windows is read as for any model, by `outline/traits.py`.
    """

    architecture: str
    model_type: str
    max_position_embeddings: int
    bos_token_id: int | None
    eos_token_id: int | None


FAMILIES = (
    Family("LlamaForCausalLM", "llama", 2048, 1, 2),
    Family("MistralForCausalLM", "mistral", 131072, 1, 2),
    Family("Qwen2ForCausalLM", "qwen2", 32768, None, None),
    Family("Qwen3ForCausalLM", "qwen3", 32768, None, None),
)


def family_of(architecture: str | None, model_type: str | None) -> Family:
    """The family by its architecture's name or, if that is not given, its model type. Raises if it is not served."""
    for family in FAMILIES:
        if architecture == family.architecture or (architecture is None and model_type == family.model_type):
            return family
    raise unsupported_architecture(architecture or model_type or "unnamed", [f.architecture for f in FAMILIES])


def unsupported_architecture(name: str, served: list[str]) -> HeadraceError:
    """The error for a model of an architecture that is not among `served`."""
    return HeadraceError(
        f"The model's architecture is {name}",
        rule=f"The architectures that are served are {', '.join(served)}",
        fix="Use a model of one of these",
        param="model",
    )
