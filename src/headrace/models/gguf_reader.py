"""GGUF checkpoints, under Hugging Face's names and in its order of rows.

Values are made by the `gguf` package's own dequantization. The 4-bit types whose values are q * scale + minimum can
also be had as those very numbers, so that a 4-bit kernel computes with the file's own bits.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.core.gguf_header import GgufHeader, GgufTensor
from headrace.kernels.ops import Int4Groups
from headrace.models.checkpoint import TensorInfo, missing_tensor
from headrace.models.gguf_groups import GROUP_READERS, GROUP_SIZE
from headrace.models.mapped_file import MappedFile, copy_serially
from headrace.planner.shape import ModelShape

_OUTER: Final[Mapping[str, str]] = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER: Final[Mapping[str, str]] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)(\.\w+)?")


class GgufCheckpoint:
    """A `Checkpoint` over one GGUF file, whose header has been read and checked."""

    def __init__(self, header: GgufHeader, shape: ModelShape) -> None:
        self._file = MappedFile(header.path)
        self._label = header.path.name
        self._tensors = {_canonical(name): tensor for name, tensor in header.tensors.items()}
        self._heads: dict[str, int] = {}
        if header.scalars["general.architecture"] == "llama":
            self._heads = {"q_proj": shape.num_heads, "k_proj": shape.num_kv_heads}

    @property
    def names(self) -> Collection[str]:
        """Names of all tensors."""
        return self._tensors.keys()

    def info(self, name: str) -> TensorInfo:
        """Shape, type and file of a tensor."""
        tensor = self._tensor(name)
        return TensorInfo(tensor.shape, tensor.type.name, self._label)

    def copy_rows(self, name: str, first: int, target: Tensor) -> None:
        """Fill `target` with dequantized rows from `first` on, and release their pages."""
        raw = self._raw_rows(name, first, len(target))
        # As one long row, since the package works through its rows sixteen at a time, in Python.
        values = gguf.quants.dequantize(raw.reshape(1, -1), gguf.GGMLQuantizationType[self._tensor(name).type.name])
        copy_serially(torch.from_numpy(values), target)

    def int4_group_size(self, name: str) -> int | None:
        """The group of the types that `copy_groups` reads."""
        return GROUP_SIZE if self._tensor(name).type.name in GROUP_READERS else None

    def copy_groups(self, name: str, first: int, target: Int4Groups) -> None:
        """Fill `target` with the file's own bits of rows from `first` on, and release their pages."""
        read = GROUP_READERS[self._tensor(name).type.name]
        read(self._raw_rows(name, first, len(target.q)), target)

    def _raw_rows(self, name: str, first: int, count: int) -> NDArray[np.uint8]:
        """A copy of the bytes of these rows, `[count, bytes of a row]`."""
        tensor = self._tensor(name)
        row_bytes = tensor.nbytes // tensor.shape[0]
        rows = self._file.array(tensor.offset, tensor.nbytes).reshape(-1, row_bytes)
        heads = self._heads.get(name.split(".")[-2])
        wanted = slice(first, first + count)
        copy = rows[wanted].copy() if heads is None else rows[_half_split_order(len(rows), heads)[wanted]]
        self._file.release(tensor.offset + first * row_bytes, count * row_bytes)
        return copy

    def _tensor(self, name: str) -> GgufTensor:
        if name not in self._tensors:
            raise missing_tensor(name, self.names, self._label)
        return self._tensors[name]


def _half_split_order(rows: int, heads: int) -> NDArray[np.int64]:
    """Which row of the file is each row of the model.

    llama.cpp rotates neighbouring elements of a head, Hugging Face elements half a head apart; its converter reorders
    the rows of Q and K of the llama architecture accordingly, and this undoes it.
    """
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _canonical(name: str) -> str:
    """Hugging Face's name of a tensor. One that is not in the tables keeps its own, under that of its layer."""
    match = _LAYER_NAME.fullmatch(name)
    if match is None:
        return _OUTER.get(name, name)
    return f"model.layers.{match[1]}.{_IN_LAYER.get(match[2], match[2])}{match[3] or ''}"
