"""Engines to test with: a bigram table whose answers can be computed by hand, and the embedded model in float32."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bigram_engine import VOCAB_SIZE, BigramEngine
from torch import Tensor

from headrace import LLM


@pytest.fixture
def table() -> Tensor:
    """Random logits, fixed."""
    return torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(7)) * 2


@pytest.fixture
def bigram(table: Tensor) -> BigramEngine:
    """An engine on the table."""
    return BigramEngine(table)


@pytest.fixture(scope="session")
def llm(smollm2_gguf: Path) -> Iterator[LLM]:
    """The embedded model in float32, everything else as it comes."""
    with LLM(str(smollm2_gguf), dtype="float32", quantization="none", max_model_len=2048, max_num_seqs=32) as llm:
        yield llm
