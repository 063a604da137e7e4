"""`headrace bench`: how fast the engine is here, without HTTP, on prompts of random tokens."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.engine_environment import prepare_this_process
from headrace.cli.engine_options import engine_config, with_engine_options
from headrace.core.config import EMBEDDED_MODEL
from headrace.core.errors import HeadraceError

Model = Annotated[str | None, typer.Argument(help="A directory, a .gguf file or a Hugging Face id.")]
InputLength = Annotated[int, typer.Option("--input-len", help="Tokens in each prompt.", min=1)]
OutputLength = Annotated[int, typer.Option("--output-len", help="Tokens made for each prompt.", min=1)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")]


def bench_app() -> typer.Typer:
    """The group of benchmark commands."""
    app = typer.Typer(help="Measure the engine.", no_args_is_help=True, rich_markup_mode=None)
    app.command()(throughput)
    app.command()(latency)
    return app


@with_engine_options
def throughput(
    engine: dict[str, object],
    model: Model = None,
    num_prompts: Annotated[int, typer.Option(help="Prompts, all sent at once.", min=1)] = 32,
    input_len: InputLength = 128,
    output_len: OutputLength = 128,
    json_file: JsonFile = None,
) -> None:
    """Tokens per second with many prompts at once, and how long each one waited."""
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
    """Seconds to the first token and for each further one, with a small batch run several times."""
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
    if json_file is not None:
        _check_writable(json_file)
    prepare_this_process()
    from headrace import LLM
    from headrace.cli.bench_engine import Load, as_table, measure

    load = Load(batch_size, num_rounds, input_len, output_len)
    with LLM(**asdict(engine_config(engine, model=model or EMBEDDED_MODEL))) as llm:
        figures = measure(llm, load)
    as_table(f"{name}: {model or EMBEDDED_MODEL}", figures)
    if json_file is not None:
        report = {"benchmark": name, "model": model or EMBEDDED_MODEL, "load": asdict(load), "figures": figures}
        json_file.write_text(json.dumps(report, indent=2) + "\n")


def _check_writable(path: Path) -> None:
    """Before the run, which may take long."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise HeadraceError(
            f"--json is {path}, which cannot be written",
            rule="It is a file in a directory that exists and may be written to",
            fix=f"Make {path.parent}, or name another file",
            param="json",
        )
