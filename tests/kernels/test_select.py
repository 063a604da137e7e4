"""Which implementation a device gets."""

import sys

import pytest
import torch

from headrace.core.errors import HeadraceError
from headrace.kernels.cpu_ops import CpuOps
from headrace.kernels.select import select_ops, start_kernels
from headrace.kernels.torch_ops import TorchOps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cpu_gets_the_cpu_path(dtype: torch.dtype) -> None:
    assert isinstance(select_ops(torch.device("cpu"), dtype), CpuOps)


def test_any_other_device_gets_the_specification() -> None:
    assert type(select_ops(torch.device("meta"), torch.bfloat16)) is TorchOps


class FakeCard:
    """What torch says of a card."""

    def __init__(self, name: str, major: int, minor: int) -> None:
        self.name, self.major, self.minor, self.multi_processor_count = name, major, minor, 40


def test_a_gpu_gets_the_triton_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: FakeCard("Tesla T4", 7, 5))
    ops, line = start_kernels(torch.device("cuda")).ops(torch.float16)
    assert type(ops).__name__ == "TritonOps"
    assert line == "Triton, sm_75"


def test_a_gpu_without_triton_gets_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "headrace.kernels.gpu.ops", None)
    ops, line = start_kernels(torch.device("cuda")).ops(torch.float16)
    assert type(ops) is TorchOps
    assert "no Triton kernels" in line


def test_a_gpu_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: FakeCard("Tesla V100", 7, 0))
    with pytest.raises(HeadraceError, match=r"Tesla V100 has compute capability 7\.0.*7\.5.*cpu"):
        start_kernels(torch.device("cuda")).ops(torch.float16)
