"""`headrace run-batch`: the requests of an OpenAI batch file, answered into another one."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.engine_options import engine_config, with_engine_options
from headrace.cli.option_fields import Flag, with_options
from headrace.cli.request_timeout import REQUEST_TIMEOUT_SECONDS, check_request_timeout, request_timeout_flag
from headrace.core.config import EMBEDDED_MODEL
from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.cli.batch.runner import Batch, BatchCounts
    from headrace.cli.client.address import ServerAddress

_FILES, _MODEL, _LIMITS = "Files", "Model", "Limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What is answered, into what, and by whom."""

    input_option: Annotated[str | None, Flag("INPUT, as a flag.", _FILES, "-i --input-file")] = None
    output_option: Annotated[Path | None, Flag("OUTPUT, as a flag.", _FILES, "-o --output-file")] = None
    resume: Annotated[bool, Flag("Go on where a run was cut, from OUTPUT.partial.", _FILES)] = False
    model: Annotated[
        str | None, Flag("A directory, a .gguf file or a Hugging Face id. [default: what the requests name]", _MODEL)
    ] = None
    served_model_name: Annotated[
        tuple[str, ...], Flag("Name by which requests call the model; can be repeated. [default: the model's]", _MODEL)
    ] = ()
    url: Annotated[str | None, Flag("Ask this running server, instead of loading a model here.", _MODEL)] = None
    api_key: Annotated[
        str | None, Flag("Key for --url.", _MODEL, environment=("HEADRACE_API_KEY", "OPENAI_API_KEY"))
    ] = None
    max_concurrency: Annotated[int, Flag("Most requests that are open at once.", _LIMITS)] = 256
    request_timeout_seconds: Annotated[float, request_timeout_flag(_LIMITS)] = REQUEST_TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        check_request_timeout(self.request_timeout_seconds)
        if self.max_concurrency < 1:
            raise HeadraceError(f"--max-concurrency is {self.max_concurrency}", rule="It must be at least 1")


@with_engine_options
@with_options(BatchOptions)
def run_batch(
    engine: dict[str, object],
    options: BatchOptions,
    input_file: Annotated[str | None, typer.Argument(metavar="INPUT", help="Requests, one a line.")] = None,
    output_file: Annotated[Path | None, typer.Argument(metavar="OUTPUT", help="Where the answers go.")] = None,
) -> None:
    """Answer the requests of an OpenAI batch file, with a model that is loaded here or with a running server (--url).

    \b
    A line of INPUT; the url may also be /v1/chat/completions:
      {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Once upon"}}
    \b
    Examples:
      headrace run-batch requests.jsonl answers.jsonl
      headrace run-batch -i requests.jsonl -o answers.jsonl --url http://127.0.0.1:8000

    OUTPUT has a line for each request, in the order of INPUT. A line that is wrong, or refused, gets an error there
    and does not stop the others. Until all are answered, the file is called OUTPUT.partial; a run that was cut goes
    on from it with --resume. An OUTPUT that is there already is replaced when all are answered.

    The exit status is 0 when every line has its answer or its error, 2 for a wrong command line or input, 1 for a
    server that is lost, 130 after Ctrl-C.
    """
    _check_one_model(engine, options)
    source = _one_of("INPUT", "-i", input_file, options.input_option)
    target = Path(_one_of("OUTPUT", "-o", output_file, options.output_option))
    if Path(source).exists() and target.exists() and target.samefile(source):
        raise HeadraceError(f"Input and output are both {source}", fix="Name another output", param="output_file")
    _run(source, target, engine, options)


def _check_one_model(engine: dict[str, object], options: BatchOptions) -> None:
    given = [*engine, *(name for name in ("model", "served_model_name") if getattr(options, name))]
    if options.url is not None and given:
        flag = given[0].replace("_", "-")
        raise HeadraceError(f"--{flag} and --url are both given", fix="The server has its own flags: leave one out")


def _one_of(name: str, flag: str, positional: object, option: object) -> str:
    given = [str(each) for each in (positional, option) if each is not None]
    if len(given) == 1 and given[0]:
        return given[0]
    raise HeadraceError(
        f"{name} is given twice" if len(given) > 1 else f"{name} is missing",
        rule=f"It is an argument, or the value of {flag}",
        fix="For example: headrace run-batch requests.jsonl answers.jsonl",
        param=name.lower(),
    )


def _run(source: str, target: Path, engine: dict[str, object], options: BatchOptions) -> None:
    from headrace.cli.batch.lines import numbered_lines, open_input
    from headrace.cli.batch.output import OutputFile, partial_of
    from headrace.cli.batch.runner import Batch
    from headrace.cli.batch.said import say_summary, say_where

    if options.resume and target.exists() and not partial_of(target).exists():
        print(f"{target} is there and whole: there is nothing to resume", file=sys.stderr)
        return
    with open_input(source) as stream, closing(OutputFile(target, resume=options.resume)) as output:
        lines = numbered_lines(stream)
        first = _first_of(lines, source)
        say_where(target)
        with _server(engine, options, first[1]) as address:
            began = time.monotonic()
            lines = chain([first], lines)
            batch = Batch(lines, Path(source).stat().st_size, output, options.max_concurrency, options.resume)
            counts = _answer_all(batch, address, options)
        output.finish()
    say_summary(counts, target, time.monotonic() - began)


def _first_of(lines: Iterator[tuple[int, bytes]], source: str) -> tuple[int, bytes]:
    first = next(lines, None)
    if first is None:
        raise HeadraceError(
            f"There are no requests in {source}",
            rule="A batch file has one request a line",
            fix="See `headrace run-batch --help` for a line",
            param="input_file",
        )
    return first


@contextmanager
def _server(engine: dict[str, object], options: BatchOptions, first_line: bytes) -> "Iterator[ServerAddress]":
    """The server to ask: the one at --url, or one of our own with the model that is named."""
    from headrace.cli.client.address import ServerAddress

    if options.url is not None:
        yield ServerAddress.parse(options.url)
        return
    from headrace.cli.batch.lines import named_model
    from headrace.cli.batch.local_server import LocalServer

    model = options.model or named_model(first_line) or EMBEDDED_MODEL
    names = options.served_model_name or (model,)
    config = engine_config(engine, model=model, served_model_name=names[0])
    print(f"Loading {model} ...", file=sys.stderr, flush=True)
    server = LocalServer(config, names)
    with server as address:
        try:
            yield address
        except HeadraceError:
            server.check()  # why it ended says more than that it does not answer
            raise


def _answer_all(batch: "Batch", address: "ServerAddress", options: BatchOptions) -> "BatchCounts":
    import asyncio

    from headrace.cli.batch.runner import BatchRunner
    from headrace.cli.client.http import HttpClient
    from headrace.cli.open_files import allow_many_connections

    allow_many_connections()
    client = HttpClient(address, options.api_key, options.request_timeout_seconds or None)
    runner = BatchRunner(client, batch)
    try:
        asyncio.run(runner.run())
    except (KeyboardInterrupt, HeadraceError):
        if batch.output.partial.stat().st_size:
            print(f"Stopped; go on with --resume: the answers so far are in {batch.output.partial}", file=sys.stderr)
        raise
    return runner.counts
