"""In which form each weight is kept: dense, int8 or int4, by the quantization asked for and what the file has.

Where linears are 4-bit the head is int8, unless the file has 4-bit groups for it too: a dense head would be half of
the bytes that a small model reads for each token, and an int8 one costs the embedded model 0.5 % of perplexity
(`benchmarks/perplexity.py`). A Q8_0 linear stays dense under "auto": one scale for a whole output channel in place of
one for 32 weights would not be the file's own bits.
"""

import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from headrace.core.config import Quantization
from headrace.kernels.ops import Linear, Ops
from headrace.models.checkpoint import Checkpoint
from headrace.models.fuse import GROUP_SIZE, rounded_groups, stacked, stacked_groups

Form = Literal["dense", "int8", "int4 as in the file", "int4 rounded"]


@dataclass(frozen=True, slots=True)
class Head:
    """The output layer; `own_nbytes` is what it holds beyond a table that it shares with the embedding."""

    linear: Linear
    form: Form
    own_nbytes: int


class LinearBuilder:
    """Makes linear layers out of a checkpoint's tensors, and counts what they became in `counts`."""

    def __init__(
        self, checkpoint: Checkpoint, ops: Ops, quantization: Quantization, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.counts: Counter[Form] = Counter()
        self._checkpoint = checkpoint
        self._ops = ops
        self._quantization = quantization
        self._dtype = dtype
        self._device = device

    def linear(self, prefix: str, parts: Sequence[str], *, bias: bool) -> Linear:
        """The projections `parts` under `prefix` as one layer, stacked in the order of `parts`."""
        names = [f"{prefix}{part}.weight" for part in parts]
        form = self._form(names)
        self.counts[form] += 1
        vector = self.tensor([f"{prefix}{part}.bias" for part in parts]) if bias else None
        return self._build(form, names, vector)

    def head(self, name: str) -> Head:
        """The output layer, from a tensor of its own."""
        form = self._head_form(name)
        linear = self._build(form, [name], None)
        return Head(linear, form, linear.nbytes)

    def tied_head(self, name: str, embedding: Tensor) -> Head:
        """The output layer from the embedding table, which is `name` in the checkpoint; it shares it if it can."""
        form = self._head_form(name)
        if form == "int8":
            linear = self._ops.int8(embedding)
            return Head(linear, form, linear.nbytes)
        if form != "dense":
            return self.head(name)
        view = embedding.view_as(embedding)
        given = weakref.ref(view)
        linear = self._ops.dense(view)
        del view
        # A layer that repacks the table lets go of the tensor that it was given, one that shares it does not.
        return Head(linear, form, 0 if given() is not None else linear.nbytes)

    def tensor(self, names: Sequence[str]) -> Tensor:
        """Tensors stacked as they are, in the model's dtype."""
        return stacked(self._checkpoint, names, self._dtype, self._device)

    def _build(self, form: Form, names: Sequence[str], bias: Tensor | None) -> Linear:
        if form == "dense":
            return self._ops.dense(self.tensor(names), bias)
        if form == "int4 as in the file":
            return self._ops.int4(stacked_groups(self._checkpoint, names, self._device), bias)
        weight = self.tensor(names)
        return self._ops.int8(weight, bias) if form == "int8" else self._ops.int4(rounded_groups(weight), bias)

    def _form(self, names: Sequence[str]) -> Form:
        if self._keeps_groups() and self._has_groups(names):
            return "int4 as in the file"
        if self._quantization in ("auto", "none"):
            return "dense"
        if self._quantization == "int8" or not self._roundable(names):
            return "int8"
        return "int4 rounded"

    def _head_form(self, name: str) -> Form:
        form = self._form([name])
        four_bit = any(self.counts[kind] for kind in ("int4 as in the file", "int4 rounded"))
        return "int8" if form == "int4 rounded" or (form == "dense" and four_bit) else form

    def _keeps_groups(self) -> bool:
        """Whether 4-bit groups stay as they are: under "auto" only where a kernel computes with them."""
        kernel = self._device.type == "cpu" and self._dtype == torch.bfloat16
        return self._quantization == "int4" or (self._quantization == "auto" and kernel)

    def _has_groups(self, names: Sequence[str]) -> bool:
        return all(self._checkpoint.int4_group_size(name) == GROUP_SIZE for name in names)

    def _roundable(self, names: Sequence[str]) -> bool:
        """Whether to round to 4 bits ourselves: not what a file has quantized already, in a type of its own."""
        infos = [self._checkpoint.info(name) for name in names]
        return all(info.type_name in ("F32", "F16", "BF16") and info.shape[1] % GROUP_SIZE == 0 for info in infos)
