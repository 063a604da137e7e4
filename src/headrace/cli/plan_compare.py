"""`headrace plan compare A B`: models, GPUs or formats side by side."""

import json
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.plan_options import serving_of, with_serving_options
from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.planner.plan import Plan
    from headrace.planner.report import Question

_MOST_COLUMNS = 8


@with_serving_options
def compare(
    serving: dict[str, Any],
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL ...", help="Each a directory, config.json, .gguf file or hub id.")
    ],
    gpu: Annotated[list[str] | None, typer.Option(help="A GPU, repeatable; else each plan's smallest.")] = None,
    quantization: Annotated[
        list[str] | None, typer.Option(help="A format, repeatable: none, int8, int4, fp8, awq, gptq ...")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Sequences of the whole context at once, at least.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Compare plans side by side: of several models, or of one on several GPUs or in several formats.

    \b
    Examples:
      headrace plan compare Qwen/Qwen3-8B meta-llama/Llama-3.1-8B --gpu L4
      headrace plan compare Qwen/Qwen3-8B --gpu L4 --gpu A100-80 --max-model-len 16K
      headrace plan compare Qwen/Qwen3-8B --quantization none --quantization int8 --gpu L40S

    Every model is planned on every GPU in every format. The plans are compared at the longest context that all hold.
    """
    from headrace.cli.compare_table import print_comparison
    from headrace.planner.compare import compare as compared
    from headrace.planner.compare import comparison_as_dict

    unnamed: list[str | None] = [None]
    wanted = list(product(models, gpu or unnamed, quantization or unnamed))
    _check_columns(len(wanted))
    questions = [_question(serving, *each, concurrency=concurrency) for each in wanted]
    comparison = compared(questions)
    refusals = [_refusal(question, column.plan) for question, column in zip(questions, comparison.columns, strict=True)]
    if as_json:
        print(json.dumps(_as_json(comparison_as_dict(comparison), refusals), indent=2))
    else:
        print_comparison(comparison, refusals)


def _refusal(question: "Question", plan: "Plan") -> str | None:
    from headrace.cli.plan_refusal import engine_refusal
    from headrace.planner.advice import engine_arguments

    return engine_refusal(plan.facts, engine_arguments(plan, question.quantization) if plan.fits else {})


def _as_json(comparison: dict[str, Any], refusals: list[str | None]) -> dict[str, object]:
    plans = zip(comparison["plans"], refusals, strict=True)
    return comparison | {"plans": [{**each, "engine_refusal": refusal} for each, refusal in plans]}


def _check_columns(count: int) -> None:
    if not 2 <= count <= _MOST_COLUMNS:
        raise HeadraceError(
            f"There {'is' if count == 1 else 'are'} {count} plan{'s' * (count != 1)} to compare",
            rule=f"It takes 2 to {_MOST_COLUMNS}: every model on every --gpu in every --quantization",
            fix="Name another model, --gpu or --quantization" if count < 2 else "Name fewer at once",
            param="models",
        )


def _question(
    serving: dict[str, Any], model: str, gpu: str | None, quantization: str | None, *, concurrency: int
) -> "Question":
    from headrace.cli.plan_model import find_facts
    from headrace.planner.choose import Demand
    from headrace.planner.gpus import find_gpu
    from headrace.planner.report import Question

    facts = find_facts(model)
    given = serving if quantization is None else {**serving, "quantization": quantization}
    named = None if gpu is None else find_gpu(gpu)
    return Question(facts, serving_of(given, facts), named, Demand(concurrency), quantization)
