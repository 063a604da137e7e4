"""What is found on a device: its memory, and who holds some of it - from a driver that says all, some or nothing."""

import os
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from headrace.engine.card import look_at
from headrace.planner.estimates import CONTEXT_BYTES
from headrace.planner.memory import GIB

TOTAL, OTHERS = 24 * GIB, 6 * GIB


@dataclass
class Properties:
    """Of a made-up card."""

    name: str = "NVIDIA Made-up"
    uuid: str = "e9b1"
    major: int = 8
    minor: int = 9


def process(pid: int, nbytes: int | None) -> SimpleNamespace:
    """As NVML lists it."""
    return SimpleNamespace(pid=pid, usedGpuMemory=nbytes)


class DriverError(Exception):
    """As NVML raises it."""


def nvml(processes: list[SimpleNamespace]) -> SimpleNamespace:
    """A driver that knows of these processes on torch's card; one that fails if there are none."""

    def start() -> None:
        if not processes:
            raise DriverError

    return SimpleNamespace(
        NVMLError=DriverError,
        nvmlInit=start,
        nvmlDeviceGetHandleByUUID={"GPU-e9b1": 0}.__getitem__,
        nvmlDeviceGetComputeRunningProcesses={0: processes}.__getitem__,
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of which others hold 6 GiB, this process's context what it takes, and its tensors 1 of 2 reserved GiB."""
    taken = OTHERS + int(CONTEXT_BYTES.value) + 2 * GIB
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (TOTAL - taken, TOTAL))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)


@pytest.mark.parametrize(
    ("processes", "others", "pids"),
    [
        ([process(os.getpid(), 3 * GIB), process(4711, 4 * GIB), process(4712, GIB)], 5 * GIB, (4711, 4712)),
        ([process(os.getpid(), 3 * GIB), process(4711, None)], OTHERS, (4711,)),
        ([process(os.getpid(), 3 * GIB)], 0, ()),
        ([process(17, GIB)], OTHERS, ()),
        ([], OTHERS, ()),
    ],
    ids=["sizes", "no sizes", "alone", "pids of another namespace", "no driver"],
)
@pytest.mark.usefixtures("gpu")
def test_what_others_hold(
    monkeypatch: pytest.MonkeyPatch, processes: list[SimpleNamespace], others: int, pids: tuple[int, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(processes))
    card = look_at(torch.device("cuda", 0))
    assert (card.memory.total_bytes, card.memory.own_bytes) == (TOTAL, GIB)
    assert (card.memory.others_bytes, card.memory.pids) == (others, pids)
    assert (card.name, card.capability, card.has_bfloat16) == ("NVIDIA Made-up", (8, 9), True)


@pytest.mark.usefixtures("gpu")
def test_without_nvml_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    memory = look_at(torch.device("cuda", 0)).memory
    assert (memory.others_bytes, memory.pids) == (OTHERS, ())


def test_a_cpu_is_its_hosts_free_memory() -> None:
    card = look_at(torch.device("cpu"))
    assert card.memory.on_cpu
    assert card.has_bfloat16
    assert 0 < card.memory.total_bytes < 1 << 50
