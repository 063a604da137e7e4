"""The engine's plan on GPUs that are not here: it refuses before it allocates, its cures start, the planner agrees."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headrace.cli.plan_options import serving_of
from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.engine.card import Card
from headrace.engine.loaded import EnginePlan
from headrace.engine.plan import plan_engine
from headrace.planner.catalogue import find_known
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.facts import facts_of_known
from headrace.planner.gpus import find_gpu
from headrace.planner.memory import GIB
from headrace.planner.plan import plan_on
from headrace.store.files import ModelFiles

MODELS = ("Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-14B", "meta-llama/Llama-3.1-70B")
CARDS = {"T4": (7, 5), "RTX-4090": (8, 9), "H100": (9, 0)}
"""Of 16, 24 and 80 GB: name in the planner's catalogue -> compute capability."""
FLAGS: tuple[dict[str, object], ...] = (
    {},
    {"max_model_len": 8192},
    {"max_model_len": 32768, "max_num_seqs": 1024},
    {"quantization": "int8", "max_model_len": 8192},
    {"kv_cache_memory_bytes": 6 * GIB},
    {"gpu_memory_utilization": 0.4, "max_model_len": 4096, "enforce_eager": True},
    {"num_gpu_blocks_override": 2000, "max_num_batched_tokens": 2048},
    {"dtype": "float32"},
)


def files_of(name: str) -> ModelFiles:
    """A model of the catalogue, as if it were here."""
    known = find_known(name)
    assert known is not None
    return ModelFiles(name, Path(name), "dummy", (), config=dict(known.config))


def card(name: str, taken_gib: float = 0, pids: tuple[int, ...] = ()) -> Card:
    """A made-up card, with what others hold of it."""
    memory = DeviceMemory("cuda", find_gpu(name).usable_bytes, int(taken_gib * GIB), pids=pids)
    return Card(torch.device("cuda", 0), name, memory, CARDS[name])


def plan(model: str, on: Card, **flags: object) -> EnginePlan:
    """What the engine decides."""
    return plan_engine(EngineConfig.from_kwargs(model=model, **flags), files_of(model), on)


def cases() -> Iterator[tuple[str, str, float, dict[str, object]]]:
    """Every model on every card, idle and shared, with every set of flags."""
    yield from itertools.product(MODELS, CARDS, (0, 6.2), FLAGS)


def test_every_suggested_flag_starts() -> None:
    """All cards and flags at once: a plan takes less than a millisecond."""
    cured, hopeless = 0, 0
    for model, name, taken, flags in cases():
        on = card(name, taken, (4711,) if taken else ())
        try:
            found = plan(model, on, **flags)
        except HeadraceError as error:
            assert ("pid 4711" in error.rule) == bool(taken)
            if not (suggested := arguments(error.fix)):
                hopeless += 1
                assert re.match(r"Use a smaller model, or a GPU with \d+ GiB|End the processes 4711", error.fix)
                continue
            cured += 1
            found = plan(model, on, **{**flags, **suggested})
        within_the_share(found)
    assert cured > hopeless / 2 > 0


def arguments(fix: str) -> dict[str, object]:
    """The flags that an error's fix names, as arguments; none where it names none."""
    if not fix.startswith("Use --"):
        return {}
    words = {name.replace("-", "_"): value for name, value in re.findall(r"--([a-z-]+) (\S+)", fix)}
    assert words
    return {name: number(value) for name, value in words.items()}


def number(text: str) -> object:
    """An integer or a share, where it is one."""
    return int(text) if text.isdigit() else float(text) if re.fullmatch(r"0\.\d+", text) else text


def within_the_share(found: EnginePlan) -> None:
    """All of a plan fits what may be used, and one sequence fits the cache."""
    cache = found.cache.num_blocks * found.memory.block_bytes
    assert found.memory.fixed_bytes + cache <= found.memory.allowed_bytes
    assert found.cache.num_blocks * found.config.block_size >= found.cache.max_model_len


def test_the_planner_answers_the_same_to_the_block() -> None:
    agreed = 0
    for model, name, flags in itertools.product(MODELS, CARDS, FLAGS):
        known = find_known(model)
        assert known is not None
        facts = facts_of_known(known, model)
        told = plan_on(
            facts, serving_of({key: value for key, value in flags.items() if value is not False}, facts), find_gpu(name)
        )
        try:
            found = plan(model, card(name), **flags)
        except HeadraceError:
            assert not told.fits
            continue
        agreed += 1
        assert told.fits
        assert (told.num_blocks, told.context) == (found.cache.num_blocks, found.cache.max_model_len)
        assert [(line.label, line.nbytes) for line in told.lines] == [
            (line.label, line.nbytes) for line in found.memory.lines
        ]
    assert agreed > 40


def test_all_that_is_left_of_a_gpu_is_cache() -> None:
    found = plan("Qwen/Qwen3-0.6B", card("H100"))
    assert found.memory.kv_bytes > 60 * GIB
    assert found.memory.allowed_bytes - found.memory.fixed_bytes - found.memory.kv_bytes == 0
    assert found.limits.max_num_batched_tokens == 8192


def test_what_others_hold_is_not_ours() -> None:
    alone, beside = plan("Qwen/Qwen3-8B", card("RTX-4090")), plan("Qwen/Qwen3-8B", card("RTX-4090", 2.0))
    block = alone.memory.block_bytes
    assert (alone.cache.num_blocks - beside.cache.num_blocks) * block == pytest.approx(2 * GIB, rel=0.01)


@pytest.mark.parametrize("asked", [None, "auto"])
def test_the_longest_context_that_fits(asked: object) -> None:
    found = plan("meta-llama/Llama-3.1-8B", card("RTX-4090"), max_model_len=asked)
    length = found.cache.max_model_len
    assert 16384 < length < 131072
    assert plan("meta-llama/Llama-3.1-8B", card("RTX-4090"), max_model_len=length).cache.num_blocks >= length // 32
    with pytest.raises(HeadraceError):
        plan("meta-llama/Llama-3.1-8B", card("RTX-4090"), max_model_len=length + 1)


def test_a_refusal_reads_as_a_sum() -> None:
    with pytest.raises(HeadraceError) as caught:
        plan("meta-llama/Llama-3.1-8B", card("RTX-4090", 6.2, (4711,)), max_model_len=8192)
    rule = caught.value.rule
    assert re.match(r"weights 15\.0 \+ activations 0\.\d+ \+ .*other processes 6\.20 \(pid 4711\)", rule), rule
    assert re.search(r"= 23\.\d of 21\.2 GiB allowed; --max-model-len 8192 needs 1\.00 GiB$", rule), rule
    assert caught.value.fix == "Use --quantization int8"


def test_an_old_card_computes_in_float16_and_refuses_bfloat16_by_name() -> None:
    assert plan("Qwen/Qwen3-0.6B", card("T4")).dtype == torch.float16
    with pytest.raises(HeadraceError, match="T4 cannot compute with"):
        plan("Qwen/Qwen3-0.6B", card("T4"), dtype="bfloat16")


def test_tensors_of_this_process_count() -> None:
    on = card("RTX-4090")
    mine = replace(on, memory=replace(on.memory, own_bytes=3 * GIB))
    labels = {line.label: line.nbytes for line in plan("Qwen/Qwen3-0.6B", mine).memory.lines}
    assert labels["This process's tensors"] == 3 * GIB


def test_a_step_must_hold_every_sequence() -> None:
    with pytest.raises(HeadraceError) as caught:
        plan("Qwen/Qwen3-0.6B", card("H100"), max_num_batched_tokens=64)
    assert "--max-num-batched-tokens 256" in caught.value.fix
