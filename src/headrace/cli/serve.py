"""`headrace serve`: a model behind OpenAI's API."""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headrace.cli.engine_options import engine_config, with_engine_options
from headrace.core.config import EMBEDDED_MODEL, EngineConfig
from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.wire.messages import Ready

DEFAULT_PORT = 8_000
MAX_SHUTDOWN_SECONDS = 86_400.0

LogLevel = Literal["critical", "error", "warning", "info", "debug", "trace"]


@with_engine_options
def serve(
    engine: dict[str, object],
    model: Annotated[
        str | None,
        typer.Argument(help="A directory, a .gguf file or a Hugging Face id. Without one, the small embedded model."),
    ] = None,
    model_option: Annotated[str | None, typer.Option("--model", help="The same, as a flag.")] = None,
    served_model_name: Annotated[
        list[str] | None, typer.Option("--served-model-name", help="Name in the API. For several, repeat the flag.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.", min=0, max=65_535)] = DEFAULT_PORT,
    shutdown_timeout: Annotated[
        float, typer.Option(help="Seconds that open requests get to finish after Ctrl-C.")
    ] = 5.0,
    uvicorn_log_level: Annotated[LogLevel, typer.Option(help="From info on, each request is logged.")] = "warning",
) -> None:
    """Serve MODEL over HTTP with OpenAI's API: /v1/chat/completions, /v1/completions, /v1/models.

    The flags are vLLM's. Stop with Ctrl-C.
    """
    chosen = _chosen_model(model, model_option, named=bool(served_model_name))
    _check_shutdown_timeout(shutdown_timeout)
    names = tuple(served_model_name or [chosen])
    config = engine_config(engine, model=chosen, served_model_name=names[0])
    _run(config, names, host, port, shutdown_timeout, uvicorn_log_level)


def _chosen_model(positional: str | None, option: str | None, *, named: bool) -> str:
    if positional is not None and option is not None and positional != option:
        hint = "; if it is a second name, repeat --served-model-name before it" if named else ""
        raise HeadraceError(
            f"Two models are named: {positional} and --model {option}", fix=f"Name one of them{hint}", param="model"
        )
    given = [name for name in (positional, option) if name is not None]
    if given and not given[0]:
        raise HeadraceError(
            "The model is ''", fix="Name one, or leave it out for the small embedded model", param="model"
        )
    return given[0] if given else EMBEDDED_MODEL


def _check_shutdown_timeout(seconds: float) -> None:
    if not 0.0 <= seconds <= MAX_SHUTDOWN_SECONDS:
        raise HeadraceError(
            f"--shutdown-timeout is {seconds:g}",
            rule=f"It must be between 0 and {MAX_SHUTDOWN_SECONDS:g} seconds",
            param="shutdown_timeout",
        )


def _run(
    config: EngineConfig, names: Sequence[str], host: str, port: int, shutdown_timeout: float, log_level: str
) -> None:
    from headrace.server.run import listen

    listener = listen(host, port)
    print(f"Loading {config.model} ...", file=sys.stderr, flush=True)
    if asyncio.run(_serve(config, names, listener, shutdown_timeout, log_level)):
        os._exit(0)  # the threads of a download that nobody waits for would keep the process until it is done


async def _serve(
    config: EngineConfig, names: Sequence[str], listener: socket.socket, shutdown_timeout: float, log_level: str
) -> bool:
    """Serve until stopped. True if the model is still being fetched."""
    from headrace.cli.engine_launcher import EngineProcess
    from headrace.server.engine_client import EngineClient
    from headrace.server.run import serve as serve_http
    from headrace.server.state import ServerState

    client = EngineClient(EngineProcess(config))
    state = ServerState(client, tuple(names), root=config.model, max_logprobs=config.max_logprobs)
    address = _url(listener)
    await serve_http(
        state,
        listener,
        on_ready=lambda: print(start_report(client.limits, address, names[0]), file=sys.stderr, flush=True),
        shutdown_timeout_seconds=shutdown_timeout,
        log_level=log_level,
    )
    return client.loading


def start_report(ready: "Ready", url: str, name: str) -> str:
    """What is served, in a few lines, and a command that talks to it."""
    width = max((len(label) for label, _ in ready.report), default=0)
    lines = [f"  {label:<{width}}  {text}" for label, text in ready.report]
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    return "\n".join(
        [*lines, f"Ready at {url}/v1, for example:", "", f"  curl {url}/v1/chat/completions \\",
         "    -H 'Content-Type: application/json' \\", f"    -d '{body}'", "",
         "Or talk to it in a terminal: " + f"headrace chat --url {url}", "Stop with Ctrl-C."]
    )  # fmt: skip


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
