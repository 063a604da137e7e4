"""Fixtures that several rooms' tests share."""

import functools
import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A shell that starts the tests in its background lets them ignore Ctrl-C, and with them the programs that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported: threads that spin while they wait make tests crawl where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Also before torch is imported: processes that share the tests share the cores too.
if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // int(processes))))
# Before triton is imported (transformers does): without a GPU its kernels are interpreted.
if not Path("/proc/driver/nvidia").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_finish() -> None:
    """What has been imported stays: a collection, which every engine's end asks for, need not walk through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The embedded model's GGUF file, found the way that the product finds it."""
    from headrace.store import embedded

    return embedded.fetch()


@pytest.fixture(scope="session")
def smollm2_of_transformers(smollm2_gguf: Path) -> "PreTrainedModel":
    """The same file in float32, read by transformers' own loader."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GGUFReader", "get_tensor_name_map"):  # it makes the one twice and the other 400 times: 10 s
            patch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
        return AutoModelForCausalLM.from_pretrained(
            smollm2_gguf.parent,
            gguf_file=smollm2_gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    """A GGUF file of one F32 and one Q8_0 tensor, with a vocabulary of three."""
    import gguf
    import numpy as np

    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(["<s>", "ä", ""])
    writer.add_token_scores([0.5, -1.0, 0.0])
    writer.add_tensor("token_embd.weight", np.arange(96, dtype=np.float32).reshape(3, 32))
    packed = gguf.quants.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.attn_q.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
