"""`headrace plan --device cpu`: what it says of a host's memory is what the engine there decides."""

import re
from pathlib import Path

import pytest
import torch

from headrace.core.config import EngineConfig
from headrace.core.errors import HeadraceError
from headrace.engine.card import Card
from headrace.engine.loaded import EnginePlan
from headrace.engine.plan import plan_engine
from headrace.planner.catalogue import find_known
from headrace.planner.device_memory import DeviceMemory
from headrace.planner.memory import GIB
from headrace.store.files import ModelFiles
from headrace.store.resolve import resolve

QWEN, LLAMA = "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B"


def engine_plan(files: ModelFiles, gib: int, **arguments: object) -> EnginePlan:
    """What the engine decides on a host with so much memory free."""
    card = Card(torch.device("cpu"), "a host", DeviceMemory("cpu", gib * GIB))
    return plan_engine(EngineConfig.from_kwargs(model=files.name, **arguments), files, card)


def known(name: str) -> ModelFiles:
    """A model of the catalogue, as if it were here."""
    found = find_known(name)
    assert found is not None
    return ModelFiles(name, Path(name), "dummy", (), config=dict(found.config))


FLAGS: list[tuple[list[str], dict[str, object]]] = [
    ([], {}),
    (["--max-model-len", "512", "--max-num-seqs", "4"], {"max_model_len": 512, "max_num_seqs": 4}),
    (["--quantization", "int8"], {"quantization": "int8"}),
    (["--quantization", "int4", "--dtype", "float32"], {"quantization": "int4", "dtype": "float32"}),
    (["--kv-cache-memory-bytes", "1G", "--block-size", "16"], {"kv_cache_memory_bytes": GIB, "block_size": 16}),
    (["--dtype", "float32", "--max-num-seqs", "600"], {"dtype": "float32", "max_num_seqs": 600}),
]


def agree(said: dict, decided: EnginePlan) -> None:
    """To the byte and to the block."""
    lines = [(line["label"], line["bytes"]) for line in said["plan"]["lines"]]
    assert lines == [(line.label, line.nbytes) for line in decided.memory.lines]
    assert said["plan"]["kv_cache_blocks"] == decided.cache.num_blocks
    assert said["plan"]["context"] == decided.cache.max_model_len


@pytest.mark.parametrize(("flags", "arguments"), FLAGS, ids=lambda value: " ".join(value) if value else "plain")
@pytest.mark.parametrize("name", [QWEN, LLAMA])
def test_a_known_model(answer, name: str, flags: list[str], arguments: dict[str, object]) -> None:
    said = answer(name, "--device", "cpu", "--host-memory", "48G", *flags)
    agree(said, engine_plan(known(name), 48, **arguments))


@pytest.mark.parametrize(("flags", "arguments"), FLAGS[:5], ids=lambda value: " ".join(value) if value else "plain")
def test_a_gguf_file(answer, smollm2_gguf: Path, flags: list[str], arguments: dict[str, object]) -> None:
    said = answer(str(smollm2_gguf), "--gpu", "cpu", "--host-memory", "8G", *flags)
    agree(said, engine_plan(resolve(str(smollm2_gguf)), 8, **arguments))


def test_the_flags_make_the_plan(answer) -> None:
    said = answer(QWEN, "--device", "cpu", "--host-memory", "16G", "--quantization", "int8")
    assert said["engine_arguments"]["device"] == "cpu"
    assert "gpu_memory_utilization" not in said["engine_arguments"]
    agree(said, engine_plan(known(QWEN), 16, **said["engine_arguments"]))


def test_what_does_not_fit_names_what_would(answer) -> None:
    said = answer(LLAMA, "--device", "cpu", "--host-memory", "12G", "--max-model-len", "8K")
    assert not said["plan"]["fits"]
    assert said["cure"] == "Use --quantization int8"
    assert said["forms"]["int8"]["fits"]
    assert not said["engine_arguments"]
    with pytest.raises(HeadraceError, match=said["cure"]):
        engine_plan(known(LLAMA), 12, max_model_len=8192)
    assert engine_plan(known(LLAMA), 12, max_model_len=8192, quantization="int8").cache.max_model_len == 8192


def test_for_a_person(run) -> None:
    status, printed, _ = run(QWEN, "--device", "cpu", "--explain")
    assert status == 0
    assert re.search(r"fits a CPU with \d+\.\d GiB of memory free", printed)
    assert "headrace serve Qwen/Qwen3-0.6B --device cpu" in printed
    assert "--quantization int8: weights 0.85 GiB" in printed
    assert "GPU" not in printed


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--device", "tpu"], "cpu or cuda"),
        (["--device", "cpu", "--gpu", "T4"], "--gpu is 'T4'"),
        (["--device", "cpu", "--host-memory", "lots"], "It must be a number"),
        (["--device", "cpu", "--max-model-len", "1m"], "reach 40960 tokens"),
    ],
)
def test_bad_input(run, flags: list[str], words: str) -> None:
    status, _, complaint = run(QWEN, *flags)
    assert status != 0
    assert words in complaint
