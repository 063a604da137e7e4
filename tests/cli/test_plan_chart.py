"""`headrace plan --chart`: a real picture, whose lines are where the arithmetic says."""

import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from headrace.cli import main
from headrace.cli.plan_chart import draw
from headrace.planner.catalogue import find_known
from headrace.planner.facts import facts_of_known
from headrace.planner.gpus import find_gpu, known_gpus
from headrace.planner.memory import GIB
from headrace.planner.plan import Plan, plan_on
from headrace.planner.serving import Serving

NAME = "Qwen/Qwen3-8B"
TOKEN_BYTES = 2 * 36 * 8 * 128 * 2
"""Keys and values, 36 layers, 8 heads of 128, 2 bytes."""


def plan_of(**serving: object) -> Plan:
    """The model on an L40S."""
    known = find_known(NAME)
    assert known is not None
    return plan_on(facts_of_known(known, NAME), Serving(**serving), find_gpu("L40S"))  # type: ignore[arg-type]


def lines_of(figure: Figure, place: int) -> dict[str, list[tuple[float, float]]]:
    """Label -> points of the curves on one of the axes."""
    curves = (line for line in figure.axes[place].lines if not line.get_label().startswith("_"))
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in curves}


def levels_of(figure: Figure, place: int) -> list[float]:
    """Heights of the level lines, which run from edge to edge."""
    return [line.get_ydata()[0] for line in figure.axes[place].lines if line.get_label().startswith("_")]


@pytest.mark.parametrize("sequences", [1, 16, 256])
def test_memory_against_context(sequences: int) -> None:
    plan = plan_of()
    points = lines_of(draw(plan), 0)["1 sequence" if sequences == 1 else f"{sequences} sequences"]
    assert [length for length, _ in points] == [256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 40960]
    fixed = sum(line.nbytes for line in plan.fixed)
    for length, gib in points:
        rotary = length * 128 * 4
        assert gib * GIB == pytest.approx(fixed + rotary + sequences * length * TOKEN_BYTES, rel=1e-9)


def test_memory_against_concurrency() -> None:
    plan = plan_of(max_model_len=8192, max_num_seqs=48)
    curves = lines_of(draw(plan), 1)
    assert list(curves) == ["512 tokens", "2,048 tokens", "8,192 tokens"]
    assert [count for count, _ in curves["8,192 tokens"]] == [1, 2, 4, 8, 16, 32, 48]
    (_, one), (_, two), *_ = curves["8,192 tokens"]
    assert (two - one) * GIB == pytest.approx(8192 * TOKEN_BYTES)


def test_a_curve_crosses_its_gpu_where_the_plan_says() -> None:
    plan = plan_of(max_model_len=8192, max_num_seqs=64)
    figure = draw(plan)
    allowed = plan.allowed_bytes / GIB
    held = [count for count, gib in lines_of(figure, 1)["8,192 tokens"] if gib <= allowed]
    assert max(held) <= plan.guaranteed(8192) < 2 * max(held)


@pytest.mark.parametrize("place", [0, 1])
def test_every_gpu_is_a_line_at_what_may_be_used_of_it(place: int) -> None:
    figure = draw(plan_of(gpu_memory_utilization=0.5))
    heights = levels_of(figure, place)
    for gpu in known_gpus():
        assert any(math.isclose(height, 0.5 * gpu.usable_gib, rel_tol=0.021) for height in heights), gpu.name
    assert any(math.isclose(height, 0.5 * find_gpu("T4").usable_gib, rel_tol=1e-6) for height in heights)
    named = " ".join(text.get_text() for text in figure.axes[1].texts)
    assert all(gpu.name in named for gpu in known_gpus())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `headrace plan`; the exit status, and what it printed and complained of."""

    def run_plan(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headrace", "plan", NAME, *arguments])
        status = main()
        return status, *capsys.readouterr()

    return run_plan


def test_a_png(run, tmp_path: Path) -> None:
    path = tmp_path / "plan.png"
    status, printed, _ = run("--gpu", "L40S", "--chart", str(path))
    assert status == 0 and "fits 1 x L40S" in printed
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG" and image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_an_svg(run, tmp_path: Path) -> None:
    path = tmp_path / "plan.SVG"
    assert run("--gpu", "L40S", "--chart", str(path))[0] == 0
    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_host(run, tmp_path: Path) -> None:
    path = tmp_path / "plan.svg"
    assert run("--device", "cpu", "--host-memory", "32G", "--chart", str(path))[0] == 0
    assert "free memory  32.0" in path.read_text()


@pytest.mark.parametrize(
    ("name", "word"), [("plan.pdf", "a .png or a .svg"), ("plan", ".png"), ("no/such/plan.png", "There is no folder")]
)
def test_where_no_chart_can_be(run, tmp_path: Path, name: str, word: str) -> None:
    status, printed, complaint = run("--chart", str(tmp_path / name))
    assert (status, printed) == (2, "") and word in complaint


def test_a_file_that_cannot_be_written(run, tmp_path: Path) -> None:
    (tmp_path / "plan.png").mkdir()
    status, _, complaint = run("--gpu", "L40S", "--chart", str(tmp_path / "plan.png"))
    assert status == 2 and "cannot be written" in complaint


def test_without_matplotlib_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from headrace.cli import main; "
        f"sys.argv = ['headrace', 'plan', 'gpt2', '--chart', {str(tmp_path / 'x.png')!r}]; sys.exit(main())"
    )
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert "pip install 'headrace[chart]'" in result.stderr
