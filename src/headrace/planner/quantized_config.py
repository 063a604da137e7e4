"""How a checkpoint's linear layers are quantized, from the quantization_config of its config.json."""

from collections.abc import Mapping

from headrace.planner.formats import WeightScheme, grouped, mxfp4_experts, scaled

_Config = Mapping[str, object]


def scheme_of_config(config: _Config) -> tuple[WeightScheme | None, tuple[str, ...]]:
    """The scheme of a quantized checkpoint, None for a plain one; and a note if its method is not known."""
    quantization = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(quantization, Mapping):
        return None, ()
    method = str(quantization.get("quant_method") or "").lower()
    scheme = _scheme(method, quantization)
    if scheme is None:
        return None, (f"The quantization method {method or 'unnamed'!r} is not known: counted as unquantized",)
    return scheme, ()


def _scheme(method: str, config: _Config) -> WeightScheme | None:
    if method == "fp8":
        return scaled("fp8", tiles=bool(config.get("weight_block_size")))
    if method == "mxfp4":
        return mxfp4_experts()
    if method in ("awq", "gptq"):
        return _grouped(method, config)
    if method == "compressed-tensors":
        return _compressed(config)
    return None


def _grouped(method: str, config: _Config) -> WeightScheme:
    bits = _number(config, ("bits", "w_bit"), 4)
    size = _number(config, ("group_size", "q_group_size"), 128)
    zeros = method == "gptq" or bool(config.get("zero_point", True))
    return grouped(f"{method} {bits}-bit", bits, size, zeros=zeros, order=method == "gptq")


def _compressed(config: _Config) -> WeightScheme | None:
    """The weights of the first group: compressed-tensors may have several, which is rare."""
    groups = config.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping):
        return None
    bits, strategy = _number(weights, ("num_bits",), 8), weights.get("strategy")
    name = f"compressed-tensors {bits}-bit"
    if bits == 8 and strategy in ("channel", "tensor", "block"):
        return scaled(name, tiles=strategy == "block")
    size = _number(weights, ("group_size",), -1) if strategy == "group" else -1
    return grouped(name, bits, size, zeros=weights.get("symmetric") is False)


def _number(config: _Config, names: tuple[str, ...], default: int) -> int:
    found = next((config[name] for name in names if isinstance(config.get(name), int)), default)
    return found if isinstance(found, int) else default
