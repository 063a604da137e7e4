"""The free memory, against this machine's and against written-down ones."""

from pathlib import Path

import psutil
import pytest

from headrace.planner.host import available_memory_bytes

MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A /proc with 1,000 MiB available, and an empty /sys/fs/cgroup."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroup.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {1000 * 1024} kB\n")
    return proc, cgroup


def limit(folder: Path, version: int, max_mib: object, used_mib: int, reclaimable_mib: int = 0) -> None:
    """Write down a memory cgroup."""
    names = {1: ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"), 2: ("max", "current", "inactive_file")}
    max_name, usage_name, reclaimable_name = names[version]
    folder.mkdir(parents=True, exist_ok=True)
    text = f"{max_mib * MIB}\n" if isinstance(max_mib, int) else f"{max_mib}\n"
    (folder / f"memory.{max_name}").write_text(text)
    (folder / f"memory.{usage_name}").write_text(f"{used_mib * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{reclaimable_name} {reclaimable_mib * MIB}\n")


def test_this_machine() -> None:
    available = available_memory_bytes()
    assert 0 < available <= psutil.virtual_memory().total


def test_without_cgroups(machine: tuple[Path, Path]) -> None:
    assert available_memory_bytes(*machine) == 1000 * MIB


def test_the_closest_limit_of_cgroup_2_binds(machine: tuple[Path, Path]) -> None:
    proc, cgroup = machine
    (proc / "self" / "cgroup").write_text("0::/pod/box\n")
    limit(cgroup / "pod" / "box", 2, "max", 10)
    assert available_memory_bytes(*machine) == 1000 * MIB
    limit(cgroup / "pod", 2, 500, 200, reclaimable_mib=50)
    assert available_memory_bytes(*machine) == 350 * MIB
    limit(cgroup / "pod" / "box", 2, 100, 70)
    assert available_memory_bytes(*machine) == 30 * MIB


def test_cgroup_1(machine: tuple[Path, Path]) -> None:
    proc, cgroup = machine
    (proc / "self" / "cgroup").write_text("3:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n")
    limit(cgroup / "memory", 1, 400, 100, reclaimable_mib=20)
    assert available_memory_bytes(*machine) == 320 * MIB


def test_a_limit_that_is_exceeded_leaves_nothing(machine: tuple[Path, Path]) -> None:
    proc, cgroup = machine
    (proc / "self" / "cgroup").write_text("0::/\n")
    limit(cgroup, 2, 100, 120)
    assert available_memory_bytes(*machine) == 0


def test_a_system_without_proc(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path, tmp_path) == psutil.virtual_memory().total // 2
