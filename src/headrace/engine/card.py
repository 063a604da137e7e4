"""What the device that an engine will run on is: its memory, who holds some of it, and what it computes in.

It is looked at once, before anything is allocated; plans are made of the facts alone.
"""

import os
from dataclasses import dataclass

import torch

from headrace.engine.open_engines import open_models
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.estimates import CONTEXT_BYTES
from headrace.planner.host import available_memory_bytes

_FIRST_WITH_BFLOAT16 = (8, 0)
_FIRST_WITH_FP8 = (8, 9)


@dataclass(frozen=True, slots=True)
class Card:
    """One device. `capability` is CUDA's compute capability, None for a CPU."""

    device: torch.device
    name: str
    memory: DeviceMemory
    capability: tuple[int, int] | None = None

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16."""
        return self.capability is None or self.capability >= _FIRST_WITH_BFLOAT16

    @property
    def has_fp8(self) -> bool:
        """Whether its kernels can keep keys and values in fp8 (e4m3)."""
        return self.capability is not None and self.capability >= _FIRST_WITH_FP8


def look_at(device: torch.device) -> Card:
    """The facts of a device that is here, now. On a GPU this makes the CUDA context, where there is none yet."""
    if device.type != "cuda":
        return Card(device, "this CPU", DeviceMemory("cpu", available_memory_bytes()))
    free, total = torch.cuda.mem_get_info(device)
    properties = torch.cuda.get_device_properties(device)
    processes = _processes(str(properties.uuid))
    others = _others_bytes(processes, total - free - torch.cuda.memory_reserved(device))
    pids = tuple(pid for pid in processes if pid != os.getpid()) if others else ()
    own = torch.cuda.memory_allocated(device)
    memory = DeviceMemory("cuda", total, others, own, pids, open_models(device) if own else ())
    return Card(device, properties.name, memory, (properties.major, properties.minor))


def _others_bytes(processes: dict[int, int | None], taken: int) -> int:
    """What other processes hold: their sum if the driver says it, else what is `taken` beyond our own context."""
    sizes = [nbytes for pid, nbytes in processes.items() if pid != os.getpid()]
    known = [nbytes for nbytes in sizes if nbytes is not None]
    if os.getpid() in processes and len(known) == len(sizes):
        return sum(known)
    return max(0, taken - int(CONTEXT_BYTES.value))


def _processes(uuid: str) -> dict[int, int | None]:
    """Pid -> bytes of the processes on a GPU, as far as NVML says; nothing without nvidia-ml-py.

    In a container the driver may count pids of the host, none of which is ours: these would name nobody here.
    """
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        found = {each.pid: each.usedGpuMemory for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    except pynvml.NVMLError:
        return {}
    return found if os.getpid() in found else {}
