"""What a runner needs of a model, and what it has on its device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from headrace.kernels.ops import HeadShape, LayerCache, Ops, StepBatch


class Model(Protocol):
    """A decoder, whatever its family."""

    def forward(self, token_ids: Tensor, batch: StepBatch, caches: Sequence[LayerCache]) -> Tensor:
        """Token ids [T] to hidden states [T, H]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [R, H] to logits [R, V], in the dtype that the output layer computes in."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its operations and its cache; `hidden_size` and `dtype` are those of its hidden states."""

    model: Model
    ops: Ops
    caches: Sequence[LayerCache]
    heads: HeadShape
    hidden_size: int
    dtype: torch.dtype
    max_model_len: int

    @property
    def block_size(self) -> int:
        """Tokens of a block of the cache."""
        return self.caches[0].k.shape[2]

    @property
    def device(self) -> torch.device:
        """Where it all is."""
        return self.caches[0].k.device

    def copy_blocks(self, pairs: Tensor) -> None:
        """Copy whole blocks of every layer's cache: int64 [N, 2], sources and targets."""
        source, target = pairs.unbind(1)
        for cache in self.caches:
            self.ops.copy_blocks(cache, source, target)
