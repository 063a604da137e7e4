"""Which implementation a device gets."""

import pytest
import torch

from headrace.kernels.cpu_ops import CpuOps
from headrace.kernels.select import select_ops
from headrace.kernels.torch_ops import TorchOps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cpu_gets_the_cpu_path(dtype: torch.dtype) -> None:
    assert isinstance(select_ops(torch.device("cpu"), dtype), CpuOps)


def test_any_other_device_gets_the_specification() -> None:
    assert type(select_ops(torch.device("meta"), torch.bfloat16)) is TorchOps
