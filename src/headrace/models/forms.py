"""In which form each weight is kept: dense, int8 or int4, by the quantization asked for and what the file has.

Measured on the embedded model (`benchmarks/perplexity.py`), an int8 head instead of a dense one leaves the perplexity
where it was, and a small model spends half its decoding time in the head. So wherever linears are 4-bit, the head is
int8 unless the file has 4-bit groups for it too.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from headrace.core.config import Quantization
from headrace.kernels.ops import Linear, Ops
from headrace.models.checkpoint import Checkpoint
from headrace.models.fuse import GROUP_SIZE, rounded_groups, stacked, stacked_groups

Form = Literal["dense", "int8", "int4 as in the file", "int4 rounded"]


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

    def head(self, name: str, embedding: Tensor | None) -> tuple[Linear, Form]:
        """The output layer from tensor `name`; `embedding` is given if it is that same tensor, already loaded."""
        form = self._head_form(name)
        if form == "dense" and embedding is not None:
            return self._ops.dense(embedding), form
        return self._build(form, [name], None), form

    def tensor(self, names: Sequence[str]) -> Tensor:
        """Tensors stacked as they are, in the model's dtype."""
        return stacked(self._checkpoint, names, self._dtype, self._device)

    def _build(self, form: Form, names: Sequence[str], bias: Tensor | None) -> Linear:
        if form == "dense":
            return self._ops.dense(self.tensor(names), bias)
        if form == "int4 as in the file":
            return self._ops.int4(stacked_groups(self._checkpoint, names, self._device), bias)
        # Rounded from float32, so that each value is rounded once.
        weight = stacked(self._checkpoint, names, torch.float32, self._device)
        return self._ops.int8(weight, bias) if form == "int8" else self._ops.int4(rounded_groups(weight), bias)

    def _form(self, names: Sequence[str]) -> Form:
        if self._quantization in ("auto", "int4") and self._has_groups(names):
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

    def _has_groups(self, names: Sequence[str]) -> bool:
        return all(self._checkpoint.int4_group_size(name) == GROUP_SIZE for name in names)

    def _roundable(self, names: Sequence[str]) -> bool:
        """Whether to round to 4 bits ourselves: not what a file has quantized already, in a type of its own."""
        infos = [self._checkpoint.info(name) for name in names]
        return all(info.type_name in ("F32", "F16", "BF16") and info.shape[1] % GROUP_SIZE == 0 for info in infos)
