"""The catalogue against transformers: its own modules, built on the meta device from the catalogue's configurations.

Only as many layers are built as show every kind that the model has; the whole count is then summed from transformers'
own count of each kind, layer by layer, and its own `layer_types` say which layer is which. What a token is kept as is
read off the cache that a forward pass on the meta device fills. `-k` takes a part of a model's name, or of its type.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import pytest
import torch
import transformers

from headrace.planner.catalogue import KnownModel, find_known, known_models
from headrace.planner.outline.from_config import outline_from_config
from headrace.planner.outline.mixers import DeltaNet, Mixer
from headrace.planner.outline.model import Layer, ModelOutline

SAME_MODULES = {"kimi_k2": "deepseek_v3"}
"""Types without a class of their own in transformers -> the one whose modules their repository copies."""
NO_FORWARD = ("gpt2",)
"""Their forward pass reads a value, which the meta device does not have."""
REPEATED = ("tiiuae/falcon-40b",)
"""transformers caches each of their key-value heads once for every query head that reads it."""
NUM_TOKENS = 3


@dataclass(frozen=True)
class Built:
    """What transformers makes: parameters outside of the layers and in each one, and what each keeps of a token.

    `kept` is the elements of keys and values (or of a latent) of one token, or (state, channels) of a fixed state.
    """

    outside: int
    layers: tuple[int, ...]
    kept: tuple[int | tuple[int, int], ...]
    windows: tuple[int | None, ...]


def text_config(model: KnownModel) -> dict[str, object]:
    """The language model's own fields, with its type as transformers has it."""
    config = dict(model.config)
    inner = config.get("text_config")
    config = dict(inner) if isinstance(inner, Mapping) else config
    config.pop("quantization_config", None)
    config["model_type"] = SAME_MODULES.get(str(config["model_type"]), config["model_type"])
    return config


def transformers_config(model: KnownModel, num_layers: int | None = None) -> transformers.PretrainedConfig:
    """Its configuration, with fewer layers if wanted."""
    fields = {**text_config(model), "pad_token_id": 0}
    kind = str(fields.pop("model_type"))
    if num_layers is not None:
        fields["num_hidden_layers"] = num_layers
    return transformers.AutoConfig.for_model(kind, **fields)


def layers_to_build(outline: ModelOutline) -> int:
    """So many from the first that every kind is among them."""
    return max(outline.layers.index(kind) for kind, _ in outline.kinds) + 1


@cache
def build(name: str) -> Built:
    """Make the first layers of a known model on the meta device; count them, and pass tokens through."""
    known = find_known(name)
    assert known is not None
    number = layers_to_build(outline_from_config(known.config))
    config = transformers_config(known, number)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
        cached = [] if config.model_type in NO_FORWARD else cache_of(model)
    layers = [sum(count for name, count in counts.items() if layer_of(name) == index) for index in range(number)]
    outside = sum(count for name, count in counts.items() if layer_of(name) is None)
    windows = tuple(getattr(layer, "sliding_window", None) for layer in cached)
    return Built(outside, tuple(layers), tuple(map(kept_by, cached)), windows)


def layer_of(name: str) -> int | None:
    """The number of the layer that a parameter is in."""
    found = re.search(r"(?:^|\.)(?:layers|h)\.(\d+)\.", name)
    return int(found[1]) if found else None


def cache_of(model: torch.nn.Module) -> list[object]:
    """The cache's layers after a few tokens."""
    ids, positions = torch.zeros(1, NUM_TOKENS, dtype=torch.long), torch.arange(NUM_TOKENS)[None]
    takes = "position_ids" in model.forward.__code__.co_varnames
    out = model(input_ids=ids, use_cache=True, **({"position_ids": positions} if takes else {}))
    return list(out.past_key_values.layers)


def kept_by(layer: object) -> int | tuple[int, int]:
    """What one layer's cache keeps of each token, or whatever the length."""
    if getattr(layer, "keys", None) is not None:
        return (layer.keys.numel() + layer.values.numel()) // NUM_TOKENS  # type: ignore[attr-defined]
    states, convolution = (next(iter(each.values())) for each in (layer.recurrent_states, layer.conv_states))  # type: ignore[attr-defined]
    return states.numel(), convolution.shape[1]


def kept_by_ours(mixer: Mixer) -> int | tuple[int, int]:
    """The same of a layer of ours."""
    if isinstance(mixer, DeltaNet):
        channels = 2 * mixer.num_key_heads * mixer.key_dim + mixer.num_value_heads * mixer.value_dim
        return mixer.num_value_heads * mixer.key_dim * mixer.value_dim, channels
    return mixer.kv_elements()


def kind_of(mixer: Mixer) -> str:
    """In transformers' words for layer types."""
    if isinstance(mixer, DeltaNet):
        return "linear_attention"
    return "full_attention" if mixer.window is None else "sliding_attention"


def label(model: KnownModel) -> str:
    """Name and type, for -k."""
    return f"{model.name} {text_config(model)['model_type']}"


@pytest.mark.parametrize("model", known_models(), ids=label)
def test_parameters(model: KnownModel) -> None:
    outline, built = outline_from_config(model.config), build(model.name)
    by_kind: dict[Layer, int] = {}
    for layer, count in zip(outline.layers, built.layers, strict=False):
        assert by_kind.setdefault(layer, count) == count, "layers of one kind differ in transformers"
    assert built.outside + sum(by_kind[layer] for layer in outline.layers) == outline.parameters
    assert outline.parameters + model.buffers == model.parameters


@pytest.mark.parametrize(
    "model",
    [each for each in known_models() if each.config["model_type"] not in NO_FORWARD and each.name not in REPEATED],
    ids=label,
)
def test_what_a_token_is_kept_as(model: KnownModel) -> None:
    outline, built = outline_from_config(model.config), build(model.name)
    ours = [layer.mixer for layer in outline.layers][: len(built.layers)]
    assert [kept_by_ours(mixer) for mixer in ours] == list(built.kept)
    assert [getattr(mixer, "window", None) for mixer in ours] == list(built.windows)


@pytest.mark.parametrize("model", known_models(), ids=label)
def test_which_layer_is_which(model: KnownModel) -> None:
    config = transformers_config(model)
    local = "full_attention" if getattr(config, "sliding_window", None) is None else "sliding_attention"
    theirs = getattr(config, "layer_types", None) or [local] * config.num_hidden_layers
    same = [kind.replace("chunked", "sliding") for kind in theirs]
    assert [kind_of(layer.mixer) for layer in outline_from_config(model.config).layers] == same
