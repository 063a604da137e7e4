"""How many bytes of tensors an engine really allocates, storage by storage, while it runs."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that are made inside of it and not let go yet: `now`, and at most, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._tensors: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, tensor: Tensor) -> None:
        address, nbytes = id(tensor), tensor.numel() * tensor.itemsize
        if tensor.layout == torch.strided:  # others, as oneDNN's, have no storage to ask
            storage = tensor.untyped_storage()
            address, nbytes = storage.data_ptr(), storage.nbytes()
        if address not in self._tensors:
            self.now += nbytes
        self._tensors[address] = self._tensors.get(address, 0) + 1
        weakref.finalize(tensor, self._let_go, address, nbytes)

    def _let_go(self, address: int, nbytes: int) -> None:
        self._tensors[address] -= 1
        if not self._tensors[address]:
            del self._tensors[address]
            self.now -= nbytes
