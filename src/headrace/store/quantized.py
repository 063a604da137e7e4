"""Quantized checkpoints are refused by name before their weights are read: misread, they would answer nonsense."""

from collections.abc import Mapping

from headrace.core.errors import HeadraceError


def refuse_quantized(config: Mapping[str, object], name: str) -> None:
    """Raise `HeadraceError` if a config.json says that its weights are quantized. `name` is the model's."""
    quantization = config.get("quantization_config") or config.get("compression_config")
    if not quantization:
        return
    raise HeadraceError(
        f"{name} is quantized with {_method(quantization)}, which is not supported yet",
        rule="The quantized checkpoints that are served are GGUF files",
        fix="Use the unquantized original with quantization='int8' (--quantization int8), or a GGUF file of it",
        param="model",
    )


def _method(quantization: object) -> str:
    if not isinstance(quantization, Mapping):
        return "an unknown method"
    if quantization.get("quant_method"):
        return str(quantization["quant_method"])
    if quantization.get("load_in_4bit") or quantization.get("load_in_8bit"):
        return "bitsandbytes"
    return "an unknown method"
