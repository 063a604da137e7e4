"""The front of a GGUF file, read without its tensors: the metadata, and where each tensor lies.

Scalars are read at once; arrays (a vocabulary has 50,000 to 250,000 strings) are only walked over, and decoded by
`strings` and `numbers` when someone asks. A file that ends before its last tensor does is refused here.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.core.gguf_types import OTHER_TYPE_NAMES, SERVED_TYPES, GgufType

Scalar = int | float | bool | str

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMS = 4
_DEFAULT_ALIGNMENT = 32
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array that has not been decoded: `count` elements of one type from byte `offset` of the file on."""

    element_type: int
    count: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: `shape` outermost first (`[out, in]`, as in torch), its bytes at `offset` from the file's start."""

    name: str
    type: GgufType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the front of the file at `path` says. Holds no file handle: arrays are read again when asked for."""

    path: Path
    scalars: Mapping[str, Scalar]
    arrays: Mapping[str, GgufArray]
    tensors: Mapping[str, GgufTensor]

    def strings(self, key: str) -> list[str]:
        """The elements of an array of strings; empty if there is no such array. Bad UTF-8 becomes U+FFFD."""
        where = self.arrays.get(key)
        if where is None or where.element_type != _STRING:
            return []
        with _mapped(self.path) as data:
            return [data[start:end].decode("utf-8", "replace") for start, end in _string_spans(data, where)]

    def numbers(self, key: str) -> list[int] | list[float]:
        """The elements of an array of numbers or booleans; empty if there is no such array."""
        where = self.arrays.get(key)
        if where is None or where.element_type not in _SCALARS:
            return []
        return list(self._unpack(_SCALARS[where.element_type], where.count, where.offset))

    def floats(self, tensor: str) -> list[float]:
        """The values of a small F32 tensor (for example rope_freqs.weight), flattened."""
        where = self.tensors[tensor]
        if where.type.name != "F32":
            raise _corrupt(self.path, f"{tensor} is {where.type.name}, where F32 is expected")
        return list(self._unpack("f", prod(where.shape), where.offset))

    def _unpack(self, code: str, count: int, offset: int) -> tuple[float, ...]:
        with self.path.open("rb") as file:
            file.seek(offset)
            return struct.unpack(f"<{count}{code}", file.read(count * struct.calcsize(f"<{code}")))


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file. Raises `HeadraceError` if it is no GGUF file, is cut short or not served."""
    _check_start(path)
    with _mapped(path) as data:
        cursor = _Cursor(data, position=8)
        try:
            num_tensors, num_keys = cursor.scalar("Q"), cursor.scalar("Q")
            scalars, arrays = _read_metadata(cursor, int(num_keys))
            infos = [_read_info(cursor) for _ in range(int(num_tensors))]
        except (EOFError, struct.error, OverflowError):
            raise _truncated(path, "the file ends inside its header") from None
        except ValueError as error:
            raise _corrupt(path, str(error)) from None
        size, end_of_infos = len(data), cursor.position
    alignment = scalars.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0:
        raise _corrupt(path, f"general.alignment is {alignment}")
    start = -(-end_of_infos // alignment) * alignment
    return GgufHeader(path, scalars, arrays, {info[0]: _locate(path, info, start, size) for info in infos})


@dataclass(slots=True)
class _Cursor:
    """A position in the file that moves as values are read; `EOFError` or `struct.error` past the end."""

    data: mmap.mmap
    position: int

    def scalar(self, code: str) -> int | float | bool:
        start = self.position
        self.position += struct.calcsize(f"<{code}")
        value: int | float | bool = struct.unpack_from(f"<{code}", self.data, start)[0]
        return value

    def integer(self, code: str) -> int:
        return int(self.scalar(code))

    def string(self) -> str:
        start = self.position + 8
        self.position = start + _U64.unpack_from(self.data, self.position)[0]
        if self.position > len(self.data):
            raise EOFError
        return self.data[start : self.position].decode("utf-8", "replace")

    def skip(self, num_bytes: int) -> None:
        self.position += num_bytes
        if self.position > len(self.data):
            raise EOFError


_Info = tuple[str, int, tuple[int, ...], int]
"""A tensor as the file lists it: name, type number, dimensions innermost first, offset from the first tensor."""


def _read_metadata(cursor: _Cursor, count: int) -> tuple[dict[str, Scalar], dict[str, GgufArray]]:
    scalars: dict[str, Scalar] = {}
    arrays: dict[str, GgufArray] = {}
    for _ in range(count):
        key = cursor.string()
        value_type = cursor.integer("I")
        if value_type == _STRING:
            scalars[key] = cursor.string()
        elif value_type == _ARRAY:
            arrays[key] = _skip_array(cursor, key)
        elif value_type in _SCALARS:
            scalars[key] = cursor.scalar(_SCALARS[value_type])
        else:
            raise ValueError(f"the value of {key!r} has the unknown type {value_type}")
    return scalars, arrays


def _skip_array(cursor: _Cursor, key: str) -> GgufArray:
    element_type, count = cursor.integer("I"), cursor.integer("Q")
    where = GgufArray(element_type, count, cursor.position)
    if element_type == _STRING:
        cursor.position = _end_of_strings(cursor.data, where)
    elif element_type in _SCALARS:
        cursor.skip(count * struct.calcsize(f"<{_SCALARS[element_type]}"))
    else:
        raise ValueError(f"the array {key!r} has elements of the type {element_type}, which is not read")
    return where


def _end_of_strings(data: mmap.mmap, where: GgufArray) -> int:
    """Walk over an array of strings: one addition a string, since this runs over a whole vocabulary at each start."""
    position, length_at = where.offset, _U64.unpack_from
    if where.count * _U64.size > len(data) - position:
        raise EOFError
    for _ in range(where.count):
        position += 8 + length_at(data, position)[0]
    if position > len(data):
        raise EOFError
    return position


def _string_spans(data: mmap.mmap, where: GgufArray) -> Iterator[tuple[int, int]]:
    position = where.offset
    for _ in range(where.count):
        start = position + 8
        position = start + _U64.unpack_from(data, position)[0]
        yield start, position


def _read_info(cursor: _Cursor) -> _Info:
    name = cursor.string()
    num_dims = cursor.integer("I")
    if not 1 <= num_dims <= _MAX_DIMS:
        raise ValueError(f"tensor {name!r} has {num_dims} dimensions")
    dims = tuple(cursor.integer("Q") for _ in range(num_dims))
    return name, cursor.integer("I"), dims, cursor.integer("Q")


def _locate(path: Path, info: _Info, start: int, file_size: int) -> GgufTensor:
    name, number, dims, offset = info
    kind = SERVED_TYPES.get(number)
    if kind is None:
        raise _unserved_type(path, name, number)
    if dims[0] % kind.block_size:
        raise _corrupt(path, f"tensor {name!r} has rows of {dims[0]}, no multiple of {kind.name}'s {kind.block_size}")
    nbytes = prod(dims) // kind.block_size * kind.block_bytes
    if start + offset + nbytes > file_size:
        missing = start + offset + nbytes - file_size
        raise _truncated(path, f"tensor {name!r} needs {missing:,} bytes more than the file's {file_size:,}")
    return GgufTensor(name, kind, dims[::-1], start + offset, nbytes)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _check_start(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    if start[:4] != _MAGIC:
        raise _corrupt(path, f"it starts with {start[:4]!r} instead of {_MAGIC!r}")
    if len(start) < 8:
        raise _truncated(path, "the file ends inside its header")
    version = int.from_bytes(start[4:], "little")
    if version in _VERSIONS:
        return
    swapped = int.from_bytes(start[4:], "big")
    shown = f"{swapped} (big-endian)" if swapped in _VERSIONS else str(version)
    raise HeadraceError(
        f"{path} is a GGUF file of version {shown}",
        rule="Versions 2 and 3, little-endian, are read",
        fix="Convert the model again with a current llama.cpp, or download a newer file",
        param="model",
    )


def _unserved_type(path: Path, tensor: str, number: int) -> HeadraceError:
    served = ", ".join(kind.name for kind in SERVED_TYPES.values())
    return HeadraceError(
        f"Tensor {tensor!r} of {path} has the type {OTHER_TYPE_NAMES.get(number, f'number {number}')}",
        rule=f"The GGUF types that are served are {served}",
        fix="Use another quantization of this model, for example Q4_K_M or Q8_0",
        param="model",
    )


def _truncated(path: Path, how: str) -> HeadraceError:
    return HeadraceError(
        f"{path} is cut short: {how}", fix="Download it again; the download did not finish", param="model"
    )


def _corrupt(path: Path, how: str) -> HeadraceError:
    return HeadraceError(f"{path} is not a valid GGUF file: {how}", fix="Download or convert it again", param="model")
