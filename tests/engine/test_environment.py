"""Variables that people set in a first notebook cell."""

import pytest
import torch

from headrace.engine.environment import environment_warnings

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


def test_blocking_launches_are_warned_of_where_there_are_launches() -> None:
    [text] = environment_warnings(GPU, {"CUDA_LAUNCH_BLOCKING": "1"})
    assert "CUDA_LAUNCH_BLOCKING=1" in text and "leave it out" in text
    assert environment_warnings(CPU, {"CUDA_LAUNCH_BLOCKING": "1"}) == []


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "VLLM_USE_V1", "VLLM_WORKER_MULTIPROC_METHOD"])
def test_other_variables_draw_no_word(name: str) -> None:
    assert environment_warnings(GPU, {name: "0", "CUDA_LAUNCH_BLOCKING": "0"}) == []
