"""`headrace plan MODEL`: what it takes to serve a model, before anything is downloaded."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.plan_options import serving_of, with_serving_options


@with_serving_options
def plan(
    serving: dict[str, Any],
    model: Annotated[str, typer.Argument(help="A directory, a config.json, a .gguf file, or a Hugging Face id.")],
    gpu: Annotated[str | None, typer.Option(help="The GPU: T4, L4, A100-80, H100 ...; else the smallest.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu: in this machine's memory, not a GPU's.")] = None,
    host_memory: Annotated[str | None, typer.Option(help="With --device cpu: what is free of it, as 16G.")] = None,
    concurrency: Annotated[int, typer.Option(help="Sequences of the whole context at once, at least.")] = 1,
    max_itl_ms: Annotated[float | None, typer.Option(help="With that many at once, ms between two tokens.")] = None,
    max_ttft_ms: Annotated[float | None, typer.Option(help="Alone, ms to a prompt's first token.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show each line's formula and source.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw memory against context and concurrency: .png or .svg.")
    ] = None,
) -> None:
    """Say what it takes to serve a model: memory, the longest context, how many at once, which GPU, what to type.

    \b
    Examples:
      headrace plan meta-llama/Llama-3.1-70B
      headrace plan Qwen/Qwen3-8B --gpu L4 --max-model-len 16K --concurrency 4
      headrace plan ./my-model/config.json --gpu T4 --quantization int8 --explain
      headrace plan Qwen/Qwen3-0.6B --device cpu --quantization int8
      headrace plan compare Qwen/Qwen3-8B meta-llama/Llama-3.1-8B
      headrace plan prices refresh

    Nothing is downloaded: known models are built in, of others the config and the headers of the weights are read.
    """
    from headrace.cli.plan_chart import check_chart_path, save_chart
    from headrace.cli.plan_host import answer_for_host, is_host
    from headrace.cli.plan_model import find_facts
    from headrace.cli.plan_refusal import engine_refusal
    from headrace.cli.plan_table import print_report
    from headrace.planner.choose import Demand
    from headrace.planner.gpus import find_gpu
    from headrace.planner.report import Question, as_dict, report_on

    if chart is not None:
        check_chart_path(chart)
    facts, demand = find_facts(model, revision=revision), Demand(concurrency, max_itl_ms, max_ttft_ms)
    if is_host(gpu, device):
        answer_for_host(facts, serving, host_memory, demand, explain=explain, as_json=as_json, chart=chart)
        return
    named = None if gpu is None else find_gpu(gpu)
    report = report_on(Question(facts, serving_of(serving, facts), named, demand, serving.get("quantization")))
    if chart is not None:
        save_chart(report.plan, chart)
    refusal = engine_refusal(facts, report.arguments)
    if as_json:
        print(json.dumps({**as_dict(report), "engine_refusal": refusal}, indent=2))
    else:
        print_report(report, refusal, explain=explain)
