"""How much memory this process may still take: the machine's free memory, or its container's if that is less."""

import os
from pathlib import Path

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
_PORTABLE_SHARE = 0.5


def available_memory_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Bytes that can be allocated without swapping: MemAvailable, capped by the limits of each cgroup above us.

    Where the system does not say (macOS), half of the physical memory.
    """
    host = _mem_available(proc / "meminfo")
    if host is None:
        return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * _PORTABLE_SHARE)
    return max(0, min([host, *_cgroup_headrooms(proc / "self" / "cgroup", cgroup)]))


def _mem_available(meminfo: Path) -> int | None:
    for line in _read(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_headrooms(membership: Path, root: Path) -> list[int]:
    """What each memory cgroup that holds this process leaves, version 2 or 1. Unlimited ones are left out."""
    headrooms = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
            headrooms += _walk(root, path, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            headrooms += _walk(root / "memory", path, names)
    return headrooms


def _walk(root: Path, path: str, names: tuple[str, str, str]) -> list[int]:
    """From the process's own group up to the root: a limit anywhere above binds. In a container `path` may not exist
    below the root that it sees, and then the root is its own group."""
    folder = root / path.lstrip("/")
    folders = [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    found = (_headroom(folder, *names) for folder in folders)
    return [headroom for headroom in found if headroom is not None]


def _headroom(folder: Path, limit_name: str, usage_name: str, reclaimable_name: str) -> int | None:
    limit, usage = _read(folder / limit_name).strip(), _read(folder / usage_name).strip()
    if not limit.isdigit() or not usage.isdigit():
        return None
    reclaimable = 0
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == reclaimable_name:
            reclaimable = int(value)
    return int(limit) - int(usage) + reclaimable


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
