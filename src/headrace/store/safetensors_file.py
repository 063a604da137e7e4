"""Whether a safetensors file is whole, told from its header alone: the data must end where the file does.

Format: https://github.com/huggingface/safetensors#format.
"""

import json
from pathlib import Path

from headrace.core.errors import HeadraceError

_MAX_HEADER_BYTES = 100_000_000
_LFS_POINTER = b"version https://git-lfs"


def check_whole(path: Path) -> None:
    """Raise `HeadraceError` if the file is cut short, is not safetensors, or is a Git LFS pointer to one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise _error(path, "is a Git LFS pointer, not the weights", "Run `git lfs pull` in the repository")
        header_bytes = int.from_bytes(start[:8], "little")
        if size < 8 or (8 + header_bytes > size and header_bytes <= _MAX_HEADER_BYTES):
            raise _cut_short(path, size, 8 + header_bytes)
        if header_bytes > _MAX_HEADER_BYTES:
            raise _corrupt(path)
        file.seek(8)
        expected = 8 + header_bytes + _data_bytes(path, file.read(header_bytes))
    if size < expected:
        raise _cut_short(path, size, expected)
    if size > expected:
        raise _corrupt(path)


def _data_bytes(path: Path, header: bytes) -> int:
    try:
        tensors = {name: info for name, info in json.loads(header).items() if name != "__metadata__"}
        return max((int(info["data_offsets"][1]) for info in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise _corrupt(path) from None


def _cut_short(path: Path, size: int, expected: int) -> HeadraceError:
    what = f"is cut short: it has {size:,} bytes of at least {expected:,}"
    return _error(path, what, "Download it again; the download did not finish")


def _corrupt(path: Path) -> HeadraceError:
    return _error(path, "is not a valid safetensors file", "Download it again")


def _error(path: Path, what: str, fix: str) -> HeadraceError:
    return HeadraceError(f"{path} {what}", fix=fix, param="model")
