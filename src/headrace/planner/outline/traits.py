"""What sets each model type apart where its config.json does not say it: the differences as data.

Checked against transformers' own modules, parameter by parameter, in tests/planner/outline.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from headrace.planner.outline.mixers import QkNorm

Switch = bool | str
"""True, False, or the name of the field of the configuration that says so; absent, it is false."""


@dataclass(frozen=True, slots=True)
class Traits:
    """One model type. `defaults` are the values of fields that published configurations leave out.

    `window_every` n means that every nth layer sees all tokens and the others a window, 0 that each layer has one,
    None that the type has none; `window_switch` that `use_sliding_window` turns it on. `qk_norm_switch` names the
    field that turns `qk_norm` on.
    """

    defaults: Mapping[str, object] = field(default_factory=dict)
    qkv_bias: Switch = False
    output_bias: Switch = False
    mlp_bias: Switch = False
    head_bias: Switch = False
    qk_norm: QkNorm = "none"
    qk_norm_switch: str | None = None
    qk_norm_bias: bool = False
    num_norms: int = 2
    norm_vectors: int = 1
    num_outer_norms: int = 1
    gated: bool = True
    window_every: int | None = None
    window_switch: bool = False
    sinks: bool = False
    gated_attention: bool = False
    shared_gate: bool = False
    router_bias: bool = False
    expert_bias: bool = False


_TIED: Final[Mapping[str, object]] = {"tie_word_embeddings": True}
_GEMMA: Final[Mapping[str, object]] = {**_TIED, "head_dim": 256}
_GEMMA3: Final[Mapping[str, object]] = {
    **_GEMMA,
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "sliding_window": 4096,
    "max_position_embeddings": 131072,
}
_QWEN: Final[Mapping[str, object]] = {"num_key_value_heads": 32, "sliding_window": 4096}


def _biased(switch: Switch, mlp: Switch = False, **rest: object) -> Traits:
    """One switch for the biases of all four projections of the attention."""
    return Traits(qkv_bias=switch, output_bias=switch, mlp_bias=mlp, **rest)  # type: ignore[arg-type]


def _classic(bias: Switch, **rest: object) -> Traits:
    """Of GPT-2's kind: layer norms with biases, two matrices in the MLP, biases everywhere."""
    return _biased(bias, bias, norm_vectors=2, gated=False, **rest)


GENERIC: Final = _biased("attention_bias", "mlp_bias", qk_norm="head", qk_norm_switch="use_qk_norm", window_every=0)
"""What is assumed of a model type that is not in the table."""

TRAITS: Final[Mapping[str, Traits]] = {
    "llama": _biased("attention_bias", "mlp_bias"),
    "mistral": Traits({"num_key_value_heads": 8, "sliding_window": 4096}, window_every=0),
    "qwen2": Traits(_QWEN, qkv_bias=True, window_every=0, window_switch=True),
    "qwen3": _biased(
        "attention_bias", defaults={**_QWEN, "head_dim": 128}, qk_norm="head", window_every=0, window_switch=True
    ),
    "mixtral": Traits({"num_key_value_heads": 8}, window_every=0),
    "qwen2_moe": Traits(
        {"num_key_value_heads": 16, "qkv_bias": True},
        qkv_bias="qkv_bias",
        shared_gate=True,
        window_every=0,
        window_switch=True,
    ),
    "qwen3_moe": _biased("attention_bias", qk_norm="head", window_every=0, window_switch=True),
    "qwen3_next": _biased(
        "attention_bias",
        defaults={"head_dim": 256, "linear_conv_kernel_dim": 4, "full_attention_interval": 4},
        qk_norm="head",
        gated_attention=True,
        shared_gate=True,
    ),
    "gemma": _biased("attention_bias", defaults=_GEMMA),
    "gemma2": _biased("attention_bias", defaults={**_GEMMA, "sliding_window": 4096}, num_norms=4, window_every=2),
    "gemma3_text": _biased("attention_bias", defaults=_GEMMA3, num_norms=4, qk_norm="head", window_every=6),
    "phi": _classic(
        True, num_norms=1, head_bias=True, qk_norm="head", qk_norm_switch="qk_layernorm", qk_norm_bias=True
    ),
    "phi3": Traits(window_every=0),
    "phimoe": _biased(
        "attention_bias",
        defaults={"num_key_value_heads": 8},
        norm_vectors=2,
        head_bias="lm_head_bias",
        window_every=0,
    ),
    "cohere": _biased("attention_bias", defaults=_TIED, num_norms=1, qk_norm="heads", qk_norm_switch="use_qk_norm"),
    "cohere2": _biased("attention_bias", defaults={**_TIED, "sliding_window": 4096}, num_norms=1, window_every=4),
    "olmo": _biased("attention_bias", norm_vectors=0),
    "olmo2": _biased("attention_bias", qk_norm="full"),
    "olmo3": _biased("attention_bias", defaults={"sliding_window": 4096}, qk_norm="full", window_every=4),
    "olmoe": _biased("attention_bias", qk_norm="full"),
    "granite": _biased("attention_bias", "mlp_bias"),
    "granitemoe": _biased("attention_bias"),
    "glm": Traits({"head_dim": 128, "attention_bias": True}, qkv_bias="attention_bias"),
    "glm4": Traits({"head_dim": 128, "attention_bias": True}, qkv_bias="attention_bias", num_norms=4),
    "glm4_moe": Traits(
        {"first_k_dense_replace": 1, "n_shared_experts": 1},
        qkv_bias="attention_bias",
        qk_norm="head",
        qk_norm_switch="use_qk_norm",
    ),
    "smollm3": _biased("attention_bias", "mlp_bias", defaults=_TIED, window_every=0, window_switch=True),
    "exaone4": Traits({"sliding_window": 4096}, qk_norm="head", window_every=4),
    "seed_oss": Traits(qkv_bias="attention_bias", output_bias="attention_out_bias", mlp_bias="mlp_bias"),
    "ernie4_5": _biased("use_bias", "use_bias", defaults={**_TIED, "head_dim": 128}),
    "ernie4_5_moe": _biased("use_bias", "use_bias", defaults={**_TIED, "n_shared_experts": 2}, router_bias=True),
    "stablelm": Traits(qkv_bias="use_qkv_bias", norm_vectors=2, qk_norm="heads", qk_norm_switch="qk_layernorm"),
    "starcoder2": _classic("use_bias", defaults={**_TIED, "use_bias": True}, window_every=0),
    "nemotron": _biased("attention_bias", "mlp_bias", norm_vectors=2, gated=False),
    "gpt2": _classic(True, defaults=_TIED),
    "gpt_neox": _biased("attention_bias", True, defaults={"attention_bias": True}, norm_vectors=2, gated=False),
    "opt": _classic("enable_bias", defaults={**_TIED, "enable_bias": True}),
    "bloom": _classic(True, defaults=_TIED, num_outer_norms=2),
    "falcon": _classic("bias", defaults=_TIED),
    "deepseek_v2": _biased("attention_bias", defaults={"n_shared_experts": 2}),
    "deepseek_v3": _biased("attention_bias", defaults={"n_shared_experts": 1}),
    "kimi_k2": _biased("attention_bias", defaults={"n_shared_experts": 1}),
    "gpt_oss": _biased(
        "attention_bias",
        defaults={"attention_bias": True, "head_dim": 64, "sliding_window": 128},
        sinks=True,
        window_every=2,
        router_bias=True,
        expert_bias=True,
    ),
    "llama4_text": _biased("attention_bias", defaults={"head_dim": 128, "attention_chunk_size": 8192}, window_every=4),
}
"""Model type -> its traits."""
