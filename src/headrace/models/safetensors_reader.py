"""Safetensors checkpoints, in one file or many.

The format: eight bytes of header length (little-endian), a JSON header of names, dtypes, shapes and offsets, then the
values (https://huggingface.co/docs/safetensors). The header is checked against the file before anything is read.
"""

import json
import math
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headrace.core.errors import HeadraceError
from headrace.kernels.ops import Int4Groups
from headrace.models.checkpoint import TensorInfo, missing_tensor
from headrace.models.mapped_file import MappedFile, copy_serially

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class _Entry:
    info: TensorInfo
    file: MappedFile
    offset: int
    nbytes: int


class SafetensorsCheckpoint:
    """A `Checkpoint` over safetensors files. Raises `HeadraceError` for a file that is truncated or is none."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._entries: dict[str, _Entry] = {}
        self._label = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
        for path in files:
            self._entries.update(_read_header(path))

    @property
    def names(self) -> Collection[str]:
        """Names of all tensors."""
        return self._entries.keys()

    def info(self, name: str) -> TensorInfo:
        """Shape, type and file of a tensor."""
        return self._entry(name).info

    def copy_rows(self, name: str, first: int, target: Tensor) -> None:
        """Fill `target` with rows from `first` on, and release their pages."""
        entry = self._entry(name)
        dtype = _DTYPES.get(entry.info.type_name)
        if dtype is None:
            raise _unsupported(name, entry.info)
        row_bytes = math.prod(entry.info.shape[1:]) * dtype.itemsize
        offset, nbytes = entry.offset + first * row_bytes, len(target) * row_bytes
        copy_serially(entry.file.tensor(offset, nbytes, dtype), target)
        entry.file.release(offset, nbytes)

    def int4_group_size(self, name: str) -> int | None:
        """None: the quantized safetensors formats are not read here."""
        return None

    def copy_groups(self, name: str, first: int, target: Int4Groups) -> None:
        """Never possible, see `int4_group_size`."""
        raise _unsupported(name, self.info(name))

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise missing_tensor(name, self.names, self._label)
        return self._entries[name]


def _read_header(path: Path) -> dict[str, _Entry]:
    """All tensors of one file, each proven to lie within it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise _not_safetensors(path, f"its header should end at byte {8 + length}, the file has {size}")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise _not_safetensors(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _not_safetensors(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    mapped = MappedFile(path)
    return {name: _entry(path, mapped, 8 + length, name, fields) for name, fields in header.items()}


def _entry(path: Path, file: MappedFile, data_start: int, name: str, fields: Any) -> _Entry:
    """One tensor of the header."""
    try:
        info = TensorInfo(tuple(map(int, fields["shape"])), str(fields["dtype"]), path.name)
        begin, end = map(int, fields["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise _not_safetensors(path, f"the header's entry for {name} is malformed") from error
    if not 0 <= begin <= end or data_start + end > file.size_bytes:
        raise _not_safetensors(path, f"{name} should end at byte {data_start + end}, the file has {file.size_bytes}")
    dtype = _DTYPES.get(info.type_name)
    if dtype is not None and math.prod(info.shape) * dtype.itemsize != end - begin:
        raise _not_safetensors(path, f"{name} of shape {list(info.shape)} cannot have {end - begin} bytes")
    return _Entry(info, file, data_start + begin, end - begin)


def _not_safetensors(path: Path, why: str) -> HeadraceError:
    return HeadraceError(
        f"{path} is truncated or not a safetensors file: {why}",
        fix="Delete it and download it again",
        param="model",
    )


def _unsupported(name: str, info: TensorInfo) -> HeadraceError:
    return HeadraceError(
        f"Tensor {name} in {info.file} has dtype {info.type_name}",
        rule=f"Weights must be {', '.join(_DTYPES)}",
        fix="Use the unquantized checkpoint, with quantization='int8' or 'int4' if it is too large",
        param="model",
    )
