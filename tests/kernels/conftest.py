"""Every implementation of the operations, for tests that hold for all of them."""

from collections.abc import Iterator

import pytest
import torch
from kernel_cases import DTYPES, IMPLEMENTATIONS

from headrace.kernels.ops import Ops


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small work on one thread: faster here, and the same on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The activations' dtype."""
    return request.param


@pytest.fixture(params=IMPLEMENTATIONS)
def ops(request: pytest.FixtureRequest, dtype: torch.dtype) -> Ops:
    """An implementation to compare with `TorchOps`."""
    return IMPLEMENTATIONS[request.param](dtype)
