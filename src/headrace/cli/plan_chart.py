"""A plan as a picture: memory against the context and against the sequences at once, and what each GPU allows."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.core.errors import HeadraceError
from headrace.planner.curves import Curve, Level, against_concurrency, against_context, levels
from headrace.planner.memory import GIB
from headrace.planner.memory_plan import MemoryPlan
from headrace.planner.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg")
_INCHES = (13, 6)
_LEAST_GAP = 0.033
"""Between two names of GPUs, as a share of the chart's height."""


def check_chart_path(path: Path) -> None:
    """Raise `HeadraceError` if a chart cannot be drawn, or not to there: before anything else is done."""
    if path.suffix.lower() not in _SUFFIXES:
        rule = f"A chart is a {' or a '.join(_SUFFIXES)} file"
        given = "empty" if path == Path() else repr(str(path))
        raise HeadraceError(f"--chart is {given}", rule=rule, fix="For example --chart plan.png", param="chart")
    if not path.parent.is_dir():
        raise HeadraceError(
            f"There is no folder {str(path.parent)!r}", fix="Make it, or name another file", param="chart"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise HeadraceError(
            "--chart needs matplotlib, which is not installed",
            fix="pip install 'headrace[chart]' (or pip install matplotlib)",
            param="chart",
        ) from error


def save_chart(plan: MemoryPlan, path: Path) -> None:
    """Draw the plan into a PNG or SVG file. Raises `HeadraceError` if it cannot be written."""
    figure = draw(plan)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise HeadraceError(
            f"The chart cannot be written to {path}: {error.strerror}", fix="Name another file", param="chart"
        ) from error


def draw(plan: MemoryPlan) -> "Figure":
    """Two axes in GiB on each GPU: by tokens of context, then by sequences at once. GPUs are level lines on both."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    known = levels(plan)
    for axes, curves, label in (
        (left, against_context(plan), "tokens of context"),
        (right, against_concurrency(plan), "sequences at once, each as long as that"),
    ):
        _draw_curves(axes, curves, label)
        _draw_levels(axes, known, plan)
    lowest = min(plan.fixed[0].nbytes, known[0].nbytes)
    left.set_yscale("log", base=2)
    left.set_ylim(0.8 * lowest / GIB, 1.4 * max(known[-1].nbytes, plan.fixed_bytes) / GIB)
    left.yaxis.set_major_formatter("{x:g}")
    left.set_ylabel("GiB on each GPU" if plan.serving.tensor_parallel_size > 1 else "GiB")
    _name_levels(right, known)
    figure.suptitle(_title(plan))
    return figure


def _title(plan: MemoryPlan) -> str:
    if plan.memory.on_cpu:
        return f"{plan.facts.name} on a CPU: memory, and what is free"
    count, share = plan.serving.tensor_parallel_size, plan.serving.gpu_memory_utilization
    spread = f", spread over {count} GPUs" if count > 1 else ""
    return f"{plan.facts.name}{spread}: memory, and what {share:.0%} of each GPU allows"


def _draw_curves(axes: "Axes", curves: Sequence[Curve], label: str) -> None:
    for curve in curves:
        axes.plot(curve.counts, [nbytes / GIB for nbytes in curve.nbytes], marker=".", label=curve.label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(label)
    axes.grid(visible=True, alpha=0.2)
    axes.legend(loc="lower right")


def _draw_levels(axes: "Axes", known: Sequence[Level], plan: MemoryPlan) -> None:
    """That of the plan is drawn in full."""
    name = plan.gpu.name if isinstance(plan, Plan) else known[0].gpus[0]
    for level in known:
        own = name in level.gpus
        axes.axhline(level.nbytes / GIB, color="black", linestyle="-" if own else ":", linewidth=1.2 if own else 0.7)


def _name_levels(axes: "Axes", known: Sequence[Level]) -> None:
    """Right of the axes, from below; a name that would lie on the one before moves up."""
    bottom, top = (math.log2(value) for value in axes.get_ylim())
    height = -math.inf
    for level in known:
        height = max((math.log2(level.nbytes / GIB) - bottom) / (top - bottom), height + _LEAST_GAP)
        text = f"{', '.join(level.gpus)}  {level.nbytes / GIB:.1f}"
        axes.annotate(text, (1.01, height), xycoords="axes fraction", fontsize=7, verticalalignment="center")
