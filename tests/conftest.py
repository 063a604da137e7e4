"""Fixtures that several rooms' tests share."""

import os
from pathlib import Path

import pytest

# Before torch is imported: threads that spin while they wait make tests crawl where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Before triton is imported (transformers does): without a GPU its kernels are interpreted.
if not Path("/proc/driver/nvidia").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The embedded model's GGUF file, found the way that the product finds it."""
    from headrace.store import embedded

    return embedded.fetch()


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
