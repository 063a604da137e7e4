"""The model families that are served, and what sets each apart: their differences as data."""

from dataclasses import dataclass

from headrace.core.errors import HeadraceError


@dataclass(frozen=True, slots=True)
class Family:
    """One family of decoders, with the defaults of its transformers configuration class.

    `num_kv_heads` None means as many as query heads, `head_dim` None hidden_size / num_heads. `biases` says whether
    `attention_bias` and `mlp_bias` of the configuration are heeded; `qwen_windows` whether the sliding window is
    switched by `use_sliding_window` and laid out by layer.
    """

    architecture: str
    model_type: str
    num_kv_heads: int | None
    head_dim: int | None
    max_position_embeddings: int
    sliding_window: int | None
    bos_token_id: int | None
    eos_token_id: int | None
    always_qkv_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    qwen_windows: bool = False


FAMILIES = (
    Family("LlamaForCausalLM", "llama", None, None, 2048, None, 1, 2, attention_bias=True, mlp_bias=True),
    Family("MistralForCausalLM", "mistral", 8, None, 131072, 4096, 1, 2),
    Family("Qwen2ForCausalLM", "qwen2", 32, None, 32768, 4096, None, None, always_qkv_bias=True, qwen_windows=True),
    Family(
        "Qwen3ForCausalLM",
        "qwen3",
        32,
        128,
        32768,
        4096,
        None,
        None,
        attention_bias=True,
        qk_norm=True,
        qwen_windows=True,
    ),
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
