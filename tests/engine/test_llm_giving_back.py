"""What an `LLM` gives back, in a process of its own: lives that end in every way, in turn, and no level rises."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from headrace import LLM, HeadraceError, SamplingParams
from headrace.engine import build
from headrace.engine.open_engines import open_models
from headrace.models.decoder import Decoder

LIVES, MIB = 20, 2**20
SMALL = {"max_model_len": 256, "max_num_seqs": 8, "kv_cache_memory_bytes": 64 * MIB}
PHASES = ("find_files", "_open_tokenizer", "load_model", "kv_cache", "make_runner", "Engine")


def small(path: Path, **kwargs: object) -> LLM:
    return LLM(str(path), **SMALL | kwargs)


def failing_after(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails as soon as it has done `phase`, so that what it made is there."""
    done = getattr(build, phase)

    def broken(*args: object, **kwargs: object) -> None:
        made = done(*args, **kwargs)
        raise RuntimeError(f"after {phase}, with {type(made).__name__}")

    monkeypatch.setattr(build, phase, broken)


@pytest.mark.parametrize("phase", PHASES)
def test_a_constructor_that_raises_keeps_nothing(
    smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """Even while the error and its traceback are held, as a notebook holds them."""
    failing_after(phase, monkeypatch)
    before = weights()
    with pytest.raises(RuntimeError, match=f"after {phase}") as held:
        small(smollm2_gguf)
    assert held.value.__traceback__ is not None
    assert weights() <= before


def weights() -> int:
    """Bytes of large tensors that something still refers to."""
    return sum(each.nbytes for each in gc.get_objects() if type(each) is torch.Tensor and each.nbytes > MIB)


def test_an_error_in_generate_holds_nothing_of_a_closed_llm(
    smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights()
    with small(smollm2_gguf) as llm:
        monkeypatch.setattr(Decoder, "_mlp", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError) as held:
            llm.generate("Hello", SamplingParams(max_tokens=2), use_tqdm=False)
    monkeypatch.undo()
    assert held.value.__traceback__ is not None and llm is not None
    assert weights() <= before


def test_the_variables_of_somebody_elses_error_stay(smollm2_gguf: Path) -> None:
    def fail() -> None:
        precious = [1, 2, 3]
        raise KeyError(len(precious))

    try:
        fail()
    except KeyError as error:
        with pytest.raises(HeadraceError):
            LLM(str(smollm2_gguf), max_model_len=10**6)
        assert error.__traceback__.tb_next.tb_frame.f_locals["precious"] == [1, 2, 3]


def test_garbage_gives_everything_back(smollm2_gguf: Path) -> None:
    """Without a collection of garbage: nothing that is big is part of a cycle."""
    llm = small(smollm2_gguf)
    loaded = llm._open
    del llm
    with pytest.raises(AttributeError):
        loaded.engine._runner._loaded  # noqa: B018


def test_an_open_engine_is_found_by_its_device(smollm2_gguf: Path) -> None:
    cpu, name = torch.device("cpu"), str(smollm2_gguf)
    already = open_models(cpu).count(name)
    with small(smollm2_gguf) as llm:
        assert open_models(cpu).count(name) == already + 1
        assert open_models(torch.device("cuda", 0)) == ()
    assert llm is not None and open_models(cpu).count(name) == already


def test_twenty_lives_leave_nothing_behind(smollm2_gguf: Path) -> None:
    """Closed, left, dropped or failed, one after the other: the memory, threads and mapped files of the first life."""
    done = subprocess.run(
        [sys.executable, __file__, str(smollm2_gguf)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    first, *later = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(later) == LIVES - 1
    for life in later:
        assert life["resident"] <= first["resident"] + 16 * MIB, (life, first)
        assert life["threads"] <= first["threads"], (life, first)
        assert (life["children"], life["mapped"]) == (0, 0)


def closed(path: Path) -> None:
    llm = small(path)
    llm.generate("Hello", SamplingParams(max_tokens=2), use_tqdm=False)
    llm.close()
    llm.close()


def left(path: Path) -> None:
    with small(path, quantization="int8") as llm:
        llm.generate("Hello", SamplingParams(max_tokens=2), use_tqdm=False)


def dropped(path: Path) -> None:
    small(path).generate("Hello", SamplingParams(max_tokens=2), use_tqdm=False)
    gc.collect()


def failed(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        failing_after("make_runner", patch)
        try:
            small(path)
        except RuntimeError as error:
            sys.last_value = error


ENDS: tuple[Callable[[Path], None], ...] = (closed, left, dropped, failed)


def live(path: Path) -> None:
    """Twenty lives; after each one line about this process."""
    process = psutil.Process()
    for turn in range(LIVES):
        ENDS[turn % len(ENDS)](path)
        life = {
            "end": ENDS[turn % len(ENDS)].__name__,
            "resident": process.memory_info().rss,
            "threads": process.num_threads(),
            "children": len(process.children()),
            "mapped": sum(each.path == str(path.resolve()) for each in process.memory_maps()),
        }
        print(json.dumps(life), flush=True)


if __name__ == "__main__":
    live(Path(sys.argv[1]))
