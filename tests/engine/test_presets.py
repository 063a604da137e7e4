"""`preset="notebook"`: what it sets on each kind of device, and that an argument of one's own replaces it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headrace import LLM, HeadraceError, SamplingParams
from headrace.core.config import EngineConfig
from headrace.core.presets import PRESETS
from headrace.engine.card import Card
from headrace.engine.loaded import EnginePlan
from headrace.engine.plan import plan_engine
from headrace.planner.catalogue import find_known
from headrace.planner.device_memory import DeviceMemory
from headrace.store.resolve import resolve

GIB = 2**30
NOTEBOOK = PRESETS["notebook"]
T4 = Card(torch.device("cuda", 0), "Tesla T4", DeviceMemory("cuda", 15 * GIB), (7, 5))
HOST = Card(torch.device("cpu"), "this CPU", DeviceMemory("cpu", 12 * GIB))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Qwen3-0.6B without weights."""
    config = {**find_known("Qwen/Qwen3-0.6B").config, "architectures": ["Qwen3ForCausalLM"], "rms_norm_eps": 1e-6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def plan(folder: Path, card: Card, **arguments: object) -> EnginePlan:
    config = EngineConfig.from_kwargs(
        **{"model": str(folder), "load_format": "dummy", "preset": "notebook", **arguments}
    )
    return plan_engine(config, resolve(str(folder), load_format="dummy"), card)


def test_on_a_t4(folder: Path) -> None:
    made = plan(folder, T4)
    assert made.dtype == torch.float16
    assert made.cache.max_model_len == NOTEBOOK.max_model_len
    assert (made.limits.max_num_seqs, made.limits.max_num_batched_tokens) == (32, 1024)
    planned = made.memory.fixed_bytes + made.memory.kv_bytes
    assert planned <= 0.7 * T4.memory.total_bytes, "4.5 GiB are the user's"


def test_a_context_that_does_not_fit_is_shortened_not_refused(folder: Path) -> None:
    small = replace(T4, memory=replace(T4.memory, own_bytes=int(8.25 * GIB)))
    assert 0 < plan(folder, small).cache.max_model_len < NOTEBOOK.max_model_len


def test_on_a_cpu_the_cache_is_small(folder: Path) -> None:
    made = plan(folder, HOST)
    assert made.cache.max_model_len == NOTEBOOK.max_model_len
    assert made.memory.kv_bytes == NOTEBOOK.cpu_cache_bytes


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"max_model_len": 8192}, lambda made: made.cache.max_model_len == 8192),
        ({"max_model_len": "auto"}, lambda made: made.cache.max_model_len > 4096),
        ({"max_num_seqs": 2000}, lambda made: made.limits.max_num_batched_tokens == 2000),
        ({"max_num_batched_tokens": 64}, lambda made: made.limits.max_num_batched_tokens == 64),
        ({"gpu_memory_utilization": 0.5}, lambda made: made.memory.allowed_bytes == int(7.5 * GIB)),
        ({"kv_cache_memory_bytes": GIB}, lambda made: made.memory.kv_bytes == GIB),
        ({"dtype": "float32"}, lambda made: made.dtype == torch.float32),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_argument_of_ones_own_replaces_the_presets(
    folder: Path, arguments: dict[str, object], found: object
) -> None:
    assert found(plan(folder, T4, **arguments))  # type: ignore[operator]


def test_a_longer_context_on_a_cpu_gets_its_cache(folder: Path) -> None:
    made = plan(folder, HOST, max_model_len=8192)
    assert made.cache.max_model_len == 8192 and made.memory.kv_bytes > NOTEBOOK.cpu_cache_bytes


@pytest.mark.parametrize("name", ["notbook", "", 5])
def test_an_unknown_preset_is_refused(name: object) -> None:
    with pytest.raises(HeadraceError, match=r"preset is .*It must be one of notebook"):
        EngineConfig.from_kwargs(preset=name)


def test_it_answers_and_says_what_it_is(smollm2_gguf: Path) -> None:
    with LLM(str(smollm2_gguf), preset="notebook") as llm:
        assert llm.generate("Hello", SamplingParams(max_tokens=2), use_tqdm=False)[0].finished
        assert dict(llm.report)["Preset"].startswith("notebook: 4,096 tokens, 32 sequences, 1,024 tokens a step; ")
