"""What a device cannot compute with is refused by the plan, on cards that are not here, or replaced with a warning."""

from pathlib import Path

import pytest
import torch

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.engine.card import Card
from headrace.engine.loaded import EnginePlan
from headrace.engine.plan import plan_engine
from headrace.models.dtype import narrower_range
from headrace.planner.catalogue import find_known
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.memory import GIB
from headrace.store.files import ModelFiles

T4, A100, L4, H100 = (
    Card(torch.device("cuda", 0), name, DeviceMemory("cuda", 15 * GIB), capability)
    for name, capability in (("Tesla T4", (7, 5)), ("A100", (8, 0)), ("L4", (8, 9)), ("H100", (9, 0)))
)
CPU = Card(torch.device("cpu"), "this CPU", DeviceMemory("cpu", 15 * GIB))


def plan(card: Card, **flags: object) -> EnginePlan:
    """The plan of a bfloat16 checkpoint."""
    known = find_known("Qwen/Qwen3-0.6B")
    assert known is not None
    files = ModelFiles("m", Path("m"), "safetensors", (), config=dict(known.config))
    return plan_engine(EngineConfig.from_kwargs(model="m", max_model_len=4096, **flags), files, card)


def test_without_bfloat16_float16_is_computed_with_a_warning() -> None:
    on_t4 = plan(T4)
    assert on_t4.dtype == on_t4.kv_dtype == torch.float16
    assert "no bfloat16" in narrower_range("auto", on_t4.shape, "safetensors", on_t4.dtype)[0]
    assert plan(A100).dtype == torch.bfloat16
    assert not narrower_range("auto", on_t4.shape, "safetensors", torch.bfloat16)
    assert not narrower_range("float16", on_t4.shape, "safetensors", torch.float16)


def test_bfloat16_that_was_insisted_on_is_refused() -> None:
    with pytest.raises(HeadraceError, match=r"bfloat16, which Tesla T4 cannot.*8\.0.*float16"):
        plan(T4, dtype="bfloat16")


@pytest.mark.parametrize("name", ["fp8", "fp8_e4m3"])
@pytest.mark.parametrize("card", [T4, A100, CPU], ids=lambda card: card.name)
def test_an_fp8_cache_is_refused_where_there_is_none(card: Card, name: str) -> None:
    with pytest.raises(HeadraceError, match=rf"kv_cache_dtype is {name}, which {card.name} cannot.*8\.9"):
        plan(card, kv_cache_dtype=name)


@pytest.mark.parametrize("card", [L4, H100], ids=lambda card: card.name)
def test_an_fp8_cache_holds_twice_the_tokens(card: Card) -> None:
    wide, narrow = plan(card), plan(card, kv_cache_dtype="fp8")
    assert (wide.kv_dtype, narrow.kv_dtype) == (torch.bfloat16, torch.float8_e4m3fn)
    assert narrow.memory.block_bytes * 2 == wide.memory.block_bytes
    assert narrow.cache.num_blocks == pytest.approx(2 * wide.cache.num_blocks, rel=1e-3)


def test_other_cache_dtypes_are_named() -> None:
    with pytest.raises(HeadraceError, match=r"kv_cache_dtype is 'fp8_e5m2'.*auto, fp8, fp8_e4m3"):
        plan(H100, kv_cache_dtype="fp8_e5m2")
