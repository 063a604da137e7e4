"""The Triton kernels on a GPU where there is one, and interpreted on the CPU everywhere else."""

from collections.abc import Iterator

import pytest
import torch
from gpu_cases import DEVICE, interpreter_knows_bfloat16

from headrace.kernels.gpu.device import GpuTraits, traits_of
from headrace.kernels.gpu.ops import TritonOps


@pytest.fixture(scope="session", autouse=True)
def complete_interpreter() -> None:
    """Without a GPU: let the interpreter multiply bfloat16."""
    if DEVICE.type == "cpu":
        interpreter_knows_bfloat16()


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Whatever is allocated without a value is NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def triton_ops() -> TritonOps:
    """The kernels; without a GPU for one of four multiprocessors, so that every program has several chunks."""
    return TritonOps(GpuTraits((9, 0), 4) if DEVICE.type == "cpu" else traits_of(DEVICE))
