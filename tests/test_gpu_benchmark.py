"""The GPU benchmarks' arithmetic and drawing, which no GPU is needed for."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import gpu
import plot_online
from gpu_floors import Ceilings, Floors, floors_of
from gpu_models import MODELS, config_of
from gpu_workloads import FULL, nano_lengths

SMALL, LARGE = MODELS


def floors(model: str) -> Floors:
    """On a card of 3.03 TB/s and 800 TFLOP/s."""
    return floors_of(config_of(model), Ceilings(3.03e12, 800e12))


def test_the_nano_vllm_workload_is_the_published_one() -> None:
    prompts, answers = nano_lengths(FULL)
    assert (sum(map(len, prompts)), sum(answers)) == (142_827, 133_966)


@pytest.mark.parametrize(
    ("model", "row", "expected"),
    [
        (SMALL, "batch 1", 0.40),
        (SMALL, "batch 8", 0.58),
        (SMALL, "batch 256", 6.6),
        (SMALL, "nano-vllm", 25_200),
        (SMALL, "prefill", 715_000),
        (LARGE, "batch 1", 4.95),
        (LARGE, "nano-vllm", 10_100),
    ],
)
def test_floors_are_bytes_over_bandwidth(model: str, row: str, expected: float) -> None:
    """By hand, for these rates."""
    assert gpu.floor(floors(model), row, FULL) == pytest.approx(expected, rel=0.04)


def test_a_table_sets_ours_beside_the_peer() -> None:
    results = {"ours": {"batch 8": {"value": 1.0}, "prefill": {"value": 300.0}}, "vLLM": {"batch 8": {"value": 3.0}}}
    table = gpu.table(["batch 8", "prefill"], {"batch 8": 0.5, "prefill": 600.0}, results)
    assert "| batch 8, ms a decode step | 0.5 | 1 (50%) | 3 (17%) | x 3.00 |" in table
    assert "| prefill, tokens/s | 600 | 300 (50%) | - | - |" in table


def test_the_plot_has_a_line_for_each_curve_and_percentile() -> None:
    def row(rate: float) -> dict[str, object]:
        return {
            "rate": rate, "out_tok_s": 10 * rate, "ttft_ms": {"p50": rate, "p99": None}, "itl_ms": {"p50": 1, "p99": 9},
        }  # fmt: skip

    picture = ElementTree.fromstring(plot_online.draw({"ours": [row(1), row(90)], "<theirs>": [row(8)]}))
    paths = [each for each in picture.iter() if each.get("stroke-width") == "2"]
    assert len(paths) == 2 * 4
    assert "<theirs>" in [each.text for each in picture.iter()]
