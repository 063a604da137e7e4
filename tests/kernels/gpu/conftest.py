"""The Triton kernels on a GPU where there is one, and interpreted on the CPU everywhere else."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from gpu_cases import DEVICE, interpreter_knows_bfloat16, interpreter_rounds_to_fp8, interpreter_skips_assembly

from headrace.kernels.gpu.device import GpuTraits, traits_of
from headrace.kernels.gpu.ops import TritonOps


@pytest.fixture(scope="session", autouse=True)
def complete_interpreter() -> None:
    """Without a GPU: let the interpreter multiply bfloat16, round to fp8 and pass over assembly."""
    if DEVICE.type == "cpu":
        interpreter_knows_bfloat16()
        interpreter_skips_assembly()
        interpreter_rounds_to_fp8()


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Whatever is allocated without a value is NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=[4] if DEVICE.type == "cpu" else [4, None], ids=lambda count: f"{count or 'all'} processors")
def triton_ops(request: pytest.FixtureRequest) -> TritonOps:
    """The kernels, for a card of four multiprocessors, so that every program has several chunks; and the real card."""
    traits = GpuTraits((9, 0), 4) if DEVICE.type == "cpu" else traits_of(DEVICE)
    return TritonOps(replace(traits, num_multiprocessors=request.param) if request.param else traits)
