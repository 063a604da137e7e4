"""What the files of a model hold, summed tensor by tensor from their headers: no weight is read."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.core.gguf_header import GgufHeader

_MAX_HEADER_BYTES = 100_000_000
_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_HEADS = ("lm_head.weight",)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: its dtype by the file's own name ("BF16", "F8_E4M3", "Q4_K"), and its bytes."""

    name: str
    dtype: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The sum over all tensors, in bytes, and by dtype. `head_bytes` of it are the output layer's own tensor."""

    nbytes: int
    bytes_by_dtype: Mapping[str, int]
    num_tensors: int
    head_bytes: int = 0

    @property
    def is_float(self) -> bool:
        """Whether every tensor is a plain float, so that the files are not quantized."""
        return self.bytes_by_dtype.keys() <= _FLOAT_BYTES.keys()

    @property
    def elements(self) -> int:
        """Elements of plain floats."""
        return sum(nbytes // _FLOAT_BYTES.get(dtype, nbytes + 1) for dtype, nbytes in self.bytes_by_dtype.items())


def summed(tensors: Iterable[StoredTensor]) -> StoredWeights:
    """The sum over tensors."""
    by_dtype: Counter[str] = Counter()
    count = head = 0
    for tensor in tensors:
        by_dtype[tensor.dtype] += tensor.nbytes
        count += 1
        head += tensor.nbytes if tensor.name.endswith(_HEADS) else 0
    return StoredWeights(by_dtype.total(), dict(by_dtype.most_common()), count, head)


def stored_in_safetensors(files: Sequence[Path]) -> StoredWeights:
    """The sum over safetensors files. Raises `HeadraceError` for a file whose header cannot be read."""
    return summed(tensor for file in files for tensor in _tensors(file))


def stored_in_gguf(header: GgufHeader) -> StoredWeights:
    """The sum over the tensors of a GGUF file."""
    return summed(StoredTensor(t.name, t.type.name, t.nbytes) for t in header.tensors.values())


def _tensors(path: Path) -> list[StoredTensor]:
    """Format: https://github.com/huggingface/safetensors#format."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size <= _MAX_HEADER_BYTES else b""
    try:
        entries = {name: info for name, info in json.loads(header).items() if name != "__metadata__"}
        return [
            StoredTensor(name, str(info["dtype"]), int(info["data_offsets"][1]) - int(info["data_offsets"][0]))
            for name, info in entries.items()
        ]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise HeadraceError(f"{path} is not a valid safetensors file", fix="Download it again", param="model") from None
