"""What the weights of a GGUF file take once the engine has loaded them: layer by layer, since the types are mixed."""

from collections.abc import Iterator
from typing import Final

from headrace.core.gguf_header import GgufHeader, GgufTensor
from headrace.planner.formats import WeightScheme, engine_int4, engine_int8, float_scheme
from headrace.planner.outline.matrix import Matrix

_FUSED: Final = (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",))
"""The linear layers of a decoder layer; the parts of one are kept in one form."""

_GROUPED = ("Q4_0", "Q4_1", "Q4_K")
_HALF_SCALES = ("Q4_0", "Q4_1")
"""The types whose scales and minima are 16-bit floats, and stay so."""
_FLOATS = ("F32", "F16", "BF16")
_GROUP_SIZE = 32
_EMBEDDING, _HEAD, _ROPE = "token_embd.weight", "output.weight", "rope_freqs.weight"


class GgufWeights:
    """The forms that the engine chooses for a file, floats in `dtype`.

    `keeps_groups` says that the file's own 4-bit groups stay as they are, `packs_head` that a float head lies beside
    the table that it is tied to.
    """

    def __init__(
        self, header: GgufHeader, quantization: str, dtype: str, *, keeps_groups: bool, packs_head: bool
    ) -> None:
        self._tensors = header.tensors
        self._quantization = quantization
        self._keeps_groups = keeps_groups
        self._packs_head = packs_head
        self._float, self._int8, self._int4 = float_scheme(dtype), engine_int8(dtype), engine_int4(dtype)
        self._int4_halves = engine_int4(dtype, scale_bits=16)

    def nbytes(self) -> int:
        """The sum over the file."""
        linears = list(self._linears())
        schemes = [self._scheme(parts) for parts in linears]
        kept = sum(_bytes(parts, scheme) for parts, scheme in zip(linears, schemes, strict=True))
        in_linears = {part.name for parts in linears for part in parts}
        rest = [each for name, each in self._tensors.items() if name not in (*in_linears, _HEAD, _ROPE)]
        return kept + _bytes(rest, self._float) + self._head_bytes(four_bit=any(map(self._is_four_bit, schemes)))

    def _linears(self) -> Iterator[list[GgufTensor]]:
        layers = {name.split(".")[1] for name in self._tensors if name.startswith("blk.")}
        for layer in layers:
            for parts in _FUSED:
                names = [f"blk.{layer}.{part}.weight" for part in parts]
                yield [self._tensors[name] for name in names if name in self._tensors]

    def _scheme(self, parts: list[GgufTensor]) -> WeightScheme:
        if self._are_groups(parts):
            return self._int4_halves if all(part.type.name in _HALF_SCALES for part in parts) else self._int4
        if self._quantization in ("auto", "none"):
            return self._float
        roundable = all(part.type.name in _FLOATS and part.shape[1] % _GROUP_SIZE == 0 for part in parts)
        return self._int4 if self._quantization == "int4" and roundable else self._int8

    def _are_groups(self, parts: list[GgufTensor]) -> bool:
        return self._keeps_groups and all(part.type.name in _GROUPED for part in parts)

    def _is_four_bit(self, scheme: WeightScheme) -> bool:
        return scheme in (self._int4, self._int4_halves)

    def _head_bytes(self, *, four_bit: bool) -> int:
        """Beside 4-bit linear layers the head is int8, unless the file has groups for it too."""
        parts = [self._tensors.get(_HEAD, self._tensors[_EMBEDDING])]
        scheme = self._scheme(parts)
        if not self._are_groups(parts) and (scheme is self._int4 or four_bit):
            scheme = self._int8
        if scheme is self._float and _HEAD not in self._tensors and not self._packs_head:
            return 0
        return _bytes(parts, scheme)


def _bytes(tensors: list[GgufTensor], scheme: WeightScheme) -> int:
    """Matrices as linear layers are kept, vectors as floats."""
    return sum(scheme.nbytes(_matrix(tensor)) for tensor in tensors)


def _matrix(tensor: GgufTensor) -> Matrix:
    if len(tensor.shape) == 1:
        return Matrix(tensor.name, tensor.shape[0], 1, "vector")
    return Matrix(tensor.name, tensor.shape[0], tensor.shape[1])
