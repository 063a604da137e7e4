"""`headrace chat`: talk to a server, or to a model in this process, in the terminal."""

import sys
from typing import Annotated

import typer

from headrace.cli.chat_session import ChatSession
from headrace.cli.chat_speakers import Answering, LocalModel, RemoteModel
from headrace.cli.engine_options import engine_config, with_engine_options
from headrace.core.config import EMBEDDED_MODEL
from headrace.core.errors import HeadraceError

MAX_TEMPERATURE = 2.0


@with_engine_options
def chat(
    engine: dict[str, object],
    model: Annotated[
        str | None, typer.Argument(help="The model to load, or with --url the name that the server knows.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Talk to this server, for example http://127.0.0.1:8000.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar=["HEADRACE_API_KEY", "OPENAI_API_KEY"], help="Key for --url.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told beforehand (system message).")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 for the same answer every time.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens.", min=1)] = None,
) -> None:
    """Talk to a model in the terminal: one that is loaded here, or a server's (--url).

    \b
    Examples:
      headrace chat
      headrace chat HuggingFaceTB/SmolLM2-360M-Instruct --system "You answer in one sentence."
      headrace chat --url http://127.0.0.1:8000
      echo "What is a headrace?" | headrace chat --temperature 0

    One line is one message, and the whole conversation is sent with each. /help lists what else can be typed.
    Ctrl-C stops an answer, Ctrl-D leaves.
    """
    answering = Answering(temperature, max_tokens)
    if url is not None:
        if engine:
            flag = next(iter(engine)).replace("_", "-")
            raise HeadraceError(f"--{flag} and --url are both given", fix="The server has its own flags: leave one out")
        remote = RemoteModel(url, model, api_key, answering)
        ChatSession(remote, system, interactive=sys.stdin.isatty()).run()
        return
    _check_temperature(temperature)
    config = engine_config(engine, model=model or EMBEDDED_MODEL)
    print(f"Loading {config.model} ...", file=sys.stderr, flush=True)
    with LocalModel(config, answering) as local:
        ChatSession(local, system, interactive=sys.stdin.isatty()).run()


def _check_temperature(temperature: float | None) -> None:
    """As the server does."""
    if temperature is not None and not 0.0 <= temperature <= MAX_TEMPERATURE:
        rule = f"It must be between 0 and {MAX_TEMPERATURE:g}"
        raise HeadraceError(f"--temperature is {temperature}", rule=rule, param="temperature")
