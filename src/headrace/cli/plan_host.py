"""`headrace plan MODEL --device cpu`: what a model takes of a host's memory, as the engine there will decide it."""

import json
import shlex
from pathlib import Path
from typing import Any

from headrace.cli.engine_options import parse_size
from headrace.cli.paper import Paper
from headrace.cli.plan_bar import origin_of, print_bar, print_capacity, print_items
from headrace.cli.plan_chart import save_chart
from headrace.cli.plan_options import serving_of
from headrace.cli.plan_refusal import engine_refusal
from headrace.core.errors import HeadraceError
from headrace.planner.advice import as_flags
from headrace.planner.choose import Demand
from headrace.planner.facts import ModelFacts
from headrace.planner.host import available_memory_bytes
from headrace.planner.memory import GIB
from headrace.planner.on_host import HostReport, host_as_dict, report_on_host


def is_host(gpu: str | None, device: str | None) -> bool:
    """Whether a CPU is asked about. Raises `HeadraceError` for another device than "cpu" and "cuda"."""
    if device not in (None, "cpu", "cuda"):
        rule, fix = "It must be cpu or cuda", "Name a GPU with --gpu"
        raise HeadraceError(f"--device is {device!r}", rule=rule, fix=fix, param="device")
    if device == "cpu" and gpu is not None and gpu.lower() != "cpu":
        fix = "Leave one of them out"
        raise HeadraceError(f"--device is cpu and --gpu is {gpu!r}", fix=fix, param="device")
    return device == "cpu" or (gpu is not None and gpu.lower() == "cpu")


def answer_for_host(
    facts: ModelFacts,
    given: dict[str, Any],
    host_memory: str | None,
    demand: Demand,
    *,
    explain: bool,
    as_json: bool,
    chart: Path | None,
) -> None:
    """Plan for this machine's free memory, or for as much as `host_memory` says; print the answer, and draw it."""
    free = available_memory_bytes() if host_memory is None else int(parse_size("host_memory", host_memory))
    report = report_on_host(facts, serving_of(given, facts, "cpu"), given.get("quantization"), free, demand)
    refusal = engine_refusal(facts, report.arguments)
    if chart is not None:
        save_chart(report.plan, chart)
    if as_json:
        print(json.dumps({**host_as_dict(report), "engine_refusal": refusal}, indent=2))
    else:
        _print(report, refusal, explain=explain)


def _print(report: HostReport, refusal: str | None, *, explain: bool) -> None:
    paper, plan, facts = Paper(), report.plan, report.plan.facts
    outline = facts.outline
    size = f"{outline.parameters / 1e9:.2f} B parameters"
    paper.sentence(f"{facts.name}: {size}, {outline.num_layers} layers, context {outline.longest_context:,}", indent="")
    for note in (f"from {origin_of(facts)}", *(f"note: {note}" for note in facts.notes)):
        paper.sentence(note)
    verdict = "fits" if plan.fits else "does not fit"
    paper.line(f"\n{verdict} a CPU with {plan.allowed_bytes / GIB:.1f} GiB of memory free")
    print_bar(paper, plan)
    print_items(paper, plan, explain=explain)
    print_capacity(paper, plan, explain=explain)
    if report.arguments:
        paper.line(f"\n  headrace serve {shlex.quote(facts.name)} {' '.join(as_flags(report.arguments))}")
    if refusal is not None:
        paper.sentence(f"This version's engine does not take that yet: {refusal}")
    for sentence in report.lacking:
        paper.sentence(f"- {sentence}")
    if report.cure is not None:
        paper.sentence(f"- {report.cure}")
    for name, other in report.forms.items():
        held = (
            f"{other.guaranteed(other.context)} at once at {other.context:,} tokens" if other.fits else "does not fit"
        )
        paper.sentence(f"- --quantization {name}: weights {other.lines[0].nbytes / GIB:.2f} GiB, {held}")
