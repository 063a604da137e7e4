"""The budget on a GPU: never more than the share that was given, and refusals whose cure works."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import HeadraceError
from headrace.planner.cache_plan import MemoryBudget
from headrace.planner.gpu_budget import DeviceMemory, gpu_budget
from headrace.planner.memory import GIB

L4 = DeviceMemory(22 * GIB, 21 * GIB)


def budget(memory: DeviceMemory = L4, share: float = 0.9, weights: float = 15, **more: object) -> MemoryBudget:
    """A budget for weights of so many GiB, and 1 GiB of activations."""
    return gpu_budget(memory, share, int(weights * GIB), GIB, graphs=True, **more)  # type: ignore[arg-type]


def test_the_cache_gets_what_is_left() -> None:
    found = budget()
    taken = sum(nbytes for _, nbytes in found.overheads)
    assert found.kv_bytes == found.free_bytes == int(22 * GIB * 0.9) - 16 * GIB - taken
    assert not found.kv_asked_for
    assert "CUDA graphs" in dict(found.overheads)
    without = gpu_budget(L4, 0.9, 15 * GIB, GIB, graphs=False)
    assert without.kv_bytes > found.kv_bytes


def test_a_refusal_is_the_budget_and_the_flag() -> None:
    memory = DeviceMemory(24 * GIB, 18 * GIB, others=((4711, 6 * GIB),))
    with pytest.raises(HeadraceError) as caught:
        budget(memory, weights=14.9)
    for part in ("weights 14.90", "activations 1.00", "other processes (pid 4711) 6.00", "CUDA graphs 0.29"):
        assert part in caught.value.rule
    assert "memory available 21.60" in caught.value.rule
    assert caught.value.fix == "Use --gpu-memory-utilization 0.93"


@given(
    total=st.integers(8, 192),
    taken=st.floats(0.01, 0.9),
    share=st.floats(0.1, 0.95),
    weights=st.floats(0.1, 100),
    least=st.integers(1, GIB),
)
def test_a_cure_that_names_a_flag_works(total: int, taken: float, share: float, weights: float, least: int) -> None:
    memory = DeviceMemory(total * GIB, int(total * GIB * (1 - taken)))
    try:
        found = budget(memory, share, weights, least_kv_bytes=least)
    except HeadraceError as error:
        cure = re.fullmatch(r"Use --gpu-memory-utilization (0\.\d+)", error.fix)
        if cure is None:
            return
        assert float(cure[1]) > share
        found = budget(memory, float(cure[1]), weights, least_kv_bytes=least)
        share = float(cure[1])
    assert found.kv_bytes >= least
    spoken_for = found.weight_bytes + found.activation_bytes + found.kv_bytes + sum(each for _, each in found.overheads)
    assert spoken_for <= total * GIB * share


def test_other_processes_are_named_where_only_they_are_in_the_way() -> None:
    memory = DeviceMemory(22 * GIB, 8 * GIB, others=((17, 13 * GIB), (18, GIB)))
    with pytest.raises(HeadraceError) as caught:
        budget(memory, weights=15)
    assert caught.value.fix == "End the processes 17, 18, or use another GPU"


def test_a_cache_that_was_asked_for() -> None:
    asked = budget(kv_cache_memory_bytes=GIB)
    assert (asked.kv_bytes, asked.kv_asked_for) == (GIB, True)
    with pytest.raises(HeadraceError) as caught:
        budget(kv_cache_memory_bytes=5 * GIB)
    size = int(caught.value.fix.split()[-1])
    assert budget(kv_cache_memory_bytes=size).kv_bytes == size


def test_a_model_that_is_too_large_for_any_share() -> None:
    with pytest.raises(HeadraceError) as caught:
        budget(weights=30)
    assert "--quantization int8" in caught.value.fix
