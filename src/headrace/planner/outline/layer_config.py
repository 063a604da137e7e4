"""The layers of a model from the fields of its configuration: attention by kind, MLP or experts, layer by layer."""

from headrace.core.errors import HeadraceError
from headrace.planner.fields import Fields
from headrace.planner.outline.feedforward import Experts, Mlp
from headrace.planner.outline.mixers import Attention, DeltaNet, LatentAttention, Mixer
from headrace.planner.outline.model import Layer
from headrace.planner.outline.traits import Switch, Traits
from headrace.planner.outline.windows import FULL, LINEAR, layer_kinds


def layers(fields: Fields, traits: Traits) -> tuple[Layer, ...]:
    """One `Layer` each. Raises `HeadraceError` for a field that is wrong or missing."""
    count = fields.size("num_hidden_layers")
    kinds = layer_kinds(fields, traits, count)
    mixers = {kind: _mixer(fields, traits, kind) for kind in set(kinds)}
    sparse = _sparse_layers(fields, count)
    experts = _experts(fields, traits) if any(sparse) else None
    mlp = _mlp(fields, traits) if not all(sparse) else None
    norms = fields.size("num_layer_norms", traits.num_norms)
    chosen = [experts if is_sparse else mlp for is_sparse in sparse]
    return tuple(Layer(mixers[kind], part, norms) for kind, part in zip(kinds, chosen, strict=True) if part)


def switched(fields: Fields, switch: Switch) -> bool:
    """What a switch of the traits comes to."""
    return switch if isinstance(switch, bool) else fields.flag(switch, False)


def _mixer(fields: Fields, traits: Traits, kind: str | int) -> Mixer:
    if kind == LINEAR:
        return _delta_net(fields)
    window = None if kind == FULL else int(kind)
    if fields.get("kv_lora_rank") is not None:
        return _latent(fields, traits, window)
    return _attention(fields, traits, window)


def _attention(fields: Fields, traits: Traits, window: int | None) -> Attention:
    num_heads = fields.size("num_attention_heads")
    num_kv_heads = fields.size("num_key_value_heads", num_heads)
    has_norm = traits.qk_norm_switch is None or fields.flag(traits.qk_norm_switch, False)
    if num_heads % num_kv_heads:
        raise ungrouped(fields.source, num_heads, num_kv_heads)
    return Attention(
        num_heads,
        num_kv_heads,
        _head_dim(fields, num_heads),
        window,
        qkv_bias=switched(fields, traits.qkv_bias),
        output_bias=switched(fields, traits.output_bias),
        qk_norm=traits.qk_norm if has_norm else "none",
        qk_norm_bias=traits.qk_norm_bias,
        sinks=traits.sinks,
        gated=traits.gated_attention,
    )


def ungrouped(source: str, num_heads: int, num_kv_heads: int) -> HeadraceError:
    """The error for key-value heads that do not divide the query heads."""
    return HeadraceError(
        f"{source} has {num_heads} query heads and {num_kv_heads} key-value heads",
        rule="The query heads must be a multiple of the key-value heads",
        fix="Download the model again, or repair the file",
        param="model",
    )


def _head_dim(fields: Fields, num_heads: int) -> int:
    hidden_size = fields.size("hidden_size")
    if fields.get("head_dim") is None and hidden_size % num_heads:
        raise fields.bad("hidden_size", f"a multiple of num_attention_heads, which is {num_heads}")
    return fields.size("head_dim", max(1, hidden_size // num_heads))


def _latent(fields: Fields, traits: Traits, window: int | None) -> LatentAttention:
    fields.require("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    return LatentAttention(
        fields.size("num_attention_heads"),
        None if fields.get("q_lora_rank") is None else fields.size("q_lora_rank"),
        fields.size("kv_lora_rank"),
        fields.size("qk_nope_head_dim"),
        fields.size("qk_rope_head_dim"),
        fields.size("v_head_dim"),
        bias=switched(fields, traits.qkv_bias),
        window=window,
    )


def _delta_net(fields: Fields) -> DeltaNet:
    names = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")
    fields.require(*(f"linear_{name}" for name in names))
    key_heads, value_heads, key_dim, value_dim = (fields.size(f"linear_{name}") for name in names)
    return DeltaNet(key_heads, value_heads, key_dim, value_dim, fields.size("linear_conv_kernel_dim", 4))


def _mlp(fields: Fields, traits: Traits) -> Mlp:
    return Mlp(fields.size("intermediate_size"), traits.gated, switched(fields, traits.mlp_bias))


def _experts(fields: Fields, traits: Traits) -> Experts:
    fields.require("num_experts_per_tok")
    size = fields.size("moe_intermediate_size") if fields.get("moe_intermediate_size") else None
    size = size or fields.size("intermediate_size")
    shared = _count(fields, "shared_expert_intermediate_size") or _count(fields, "n_shared_experts") * size
    return Experts(
        fields.size("num_experts"),
        fields.size("num_experts_per_tok"),
        size,
        shared,
        shared_gate=traits.shared_gate,
        router_bias=traits.router_bias,
        bias=traits.expert_bias,
        gated=traits.gated,
    )


def _count(fields: Fields, name: str) -> int:
    """A number that may be absent, null or zero."""
    return fields.size(name) if fields.get(name) else 0


def _sparse_layers(fields: Fields, count: int) -> list[bool]:
    """Which layers have experts, in the spellings of DeepSeek, Qwen and Llama 4."""
    if not _count(fields, "num_experts"):
        return [False] * count
    first = _count(fields, "first_k_dense_replace")
    every = _first_of(fields, ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval"))
    dense = fields.layers("mlp_only_layers")
    named = fields.layers("moe_layers")
    if named:
        return [layer in named for layer in range(count)]
    return [layer >= first and (layer + 1) % every == 0 and layer not in dense for layer in range(count)]


def _first_of(fields: Fields, names: tuple[str, ...]) -> int:
    return next((fields.size(name) for name in names if fields.get(name)), 1)
