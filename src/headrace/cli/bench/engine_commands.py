"""`headrace bench throughput` and `latency`: the engine in this process, without HTTP, on prompts of random tokens."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.engine_environment import prepare_this_process
from headrace.cli.engine_options import engine_config, with_engine_options
from headrace.core.config import EMBEDDED_MODEL

Model = Annotated[
    str | None,
    typer.Argument(help="A directory, a .gguf file or a Hugging Face id. Without one, the small embedded model."),
]
InputLength = Annotated[int, typer.Option("--input-len", help="Tokens in each prompt.", min=1)]
OutputLength = Annotated[int, typer.Option("--output-len", help="Tokens made for each prompt.", min=1)]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", "--output-json", help="Also write the figures to this file.", show_default=False),
]


@with_engine_options
def throughput(
    engine: dict[str, object],
    model: Model = None,
    num_prompts: Annotated[int, typer.Option(help="Prompts, all sent at once.", min=1)] = 32,
    input_len: InputLength = 128,
    output_len: OutputLength = 128,
    json_file: JsonFile = None,
) -> None:
    """Tokens per second with many prompts at once: no HTTP, the engine runs in this process.

    \b
    Example:
      headrace bench throughput --num-prompts 16 --input-len 512 --output-len 64
    """
    _bench(engine, model, "throughput", num_prompts, 1, input_len, output_len, json_file)


@with_engine_options
def latency(
    engine: dict[str, object],
    model: Model = None,
    batch_size: Annotated[int, typer.Option(help="Prompts at once.", min=1)] = 1,
    num_iters: Annotated[int, typer.Option(help="How often the batch is run.", min=1)] = 5,
    input_len: InputLength = 128,
    output_len: OutputLength = 128,
    json_file: JsonFile = None,
) -> None:
    """How long one prompt, or a small batch, takes: no HTTP, the engine runs in this process.

    \b
    Example:
      headrace bench latency --input-len 1024 --output-len 32
    """
    _bench(engine, model, "latency", batch_size, num_iters, input_len, output_len, json_file)


def _bench(
    engine: dict[str, object],
    model: str | None,
    name: str,
    batch_size: int,
    num_rounds: int,
    input_len: int,
    output_len: int,
    json_file: Path | None,
) -> None:
    from headrace.cli.bench.figures import DEFAULT_PERCENTILES, check_writable, print_report, write_json

    if json_file is not None:
        check_writable(json_file)
    prepare_this_process()
    from headrace import LLM
    from headrace.cli.bench.engine_load import EngineLoad, measure

    model = model or EMBEDDED_MODEL
    with LLM(**asdict(engine_config(engine, model=model))) as llm:
        run = measure(llm, EngineLoad(batch_size, num_rounds, input_len, output_len))
    counts = {label.replace("_", " "): value for label, value in run.counts().items()}
    print_report(f"{name}: {model}", counts, run.distributions(), DEFAULT_PERCENTILES)
    if json_file is not None:
        write_json(json_file, {"benchmark": name, "model_id": model, "load": asdict(run.load), **run.figures()})
