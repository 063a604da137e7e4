"""A device that is not here, on machines of every kind: none, one that torch does not reach, too few."""

import pytest
import torch

from headrace.core.errors import HeadraceError
from headrace.engine.visible_gpus import VisibleGpus, one_of_several, resolve_device

OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040)."
NONE = VisibleGpus(count=0, present=0, cuda="13.0")
TWO = VisibleGpus(count=2, present=2, cuda="13.0")


def test_auto_takes_the_first_gpu_that_torch_can_use() -> None:
    assert resolve_device("auto", TWO) == torch.device("cuda")
    assert resolve_device("auto", NONE) == torch.device("cpu")
    assert resolve_device("auto", VisibleGpus(0, 1, "13.0", OLD_DRIVER)) == torch.device("cpu")
    assert resolve_device("cuda:1", TWO) == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (NONE, r"torch sees 0 CUDA GPUs here\W"),
        (VisibleGpus(0, 0, None), "torch .* was built without CUDA.*install a build of torch with CUDA"),
        (VisibleGpus(0, 1, None), "built without CUDA; install a build with it"),
        (VisibleGpus(0, 1, "13.0", OLD_DRIVER), r"CUDA 13.0, fails.*too old \(found version 11040\); update NVIDIA's"),
        (VisibleGpus(0, 1, "13.0"), "does not say why"),
    ],
    ids=["none", "none, and torch without CUDA", "torch without CUDA", "old driver", "silent"],
)
def test_a_gpu_that_cannot_be_used_says_why(gpus: VisibleGpus, words: str) -> None:
    with pytest.raises(HeadraceError, match=words) as refused:
        resolve_device("cuda", gpus)
    assert refused.value.what == "device is 'cuda'"
    assert "'cpu'" in refused.value.fix


def test_an_index_too_high_names_those_that_are_here() -> None:
    with pytest.raises(HeadraceError, match="torch sees 2 CUDA GPUs here, cuda:0 to cuda:1"):
        resolve_device("cuda:2", TWO)


def test_an_engine_on_one_of_two_gpus_says_so() -> None:
    [(_, text)] = one_of_several(torch.device("cuda", 1), 2)
    assert text.startswith("cuda:1 alone, of 2") and text.endswith("--device cuda:0")
    assert one_of_several(torch.device("cuda"), 1) == one_of_several(torch.device("cpu"), 2) == []
