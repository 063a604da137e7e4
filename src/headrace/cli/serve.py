"""`headrace serve`: a model behind OpenAI's API."""

import json
import os
import shlex
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.engine_environment import KEY_VARIABLES
from headrace.cli.engine_options import engine_config, with_engine_options
from headrace.cli.server_options import with_server_options
from headrace.core.config import EMBEDDED_MODEL, EngineConfig
from headrace.core.errors import HeadraceError
from headrace.server.options import ServerOptions

if TYPE_CHECKING:
    from headrace.wire.messages import Ready


@with_engine_options
@with_server_options
def serve(
    engine: dict[str, object],
    server: ServerOptions,
    model: Annotated[
        str | None,
        typer.Argument(help="A directory, a .gguf file or a Hugging Face id. Without one, the small embedded model."),
    ] = None,
    model_option: Annotated[str | None, typer.Option("--model", help="The same, as a flag.")] = None,
) -> None:
    """Serve MODEL over HTTP with OpenAI's API: /v1/chat/completions, /v1/completions, /v1/models.

    \b
    Examples:
      headrace serve
      headrace serve HuggingFaceTB/SmolLM2-360M-Instruct --port 9000
      headrace serve ./my-model --host 0.0.0.0 --api-key "$(openssl rand -hex 32)"

    Without flags it listens on this machine only. The flags have vLLM's names. Stop with Ctrl-C.
    """
    chosen = _chosen_model(model, model_option)
    names = server.served_model_name or (chosen,)
    _run(engine_config(engine, model=chosen, served_model_name=names[0]), names, server)


def _chosen_model(positional: str | None, option: str | None) -> str:
    if positional is not None and option is not None and positional != option:
        raise HeadraceError(
            f"Two models are named: {positional} and --model {option}", fix="Name one of them", param="model"
        )
    given = [name for name in (positional, option) if name is not None]
    if given and not given[0]:
        raise HeadraceError(
            "The model is ''", fix="Name one, or leave it out for the small embedded model", param="model"
        )
    return given[0] if given else EMBEDDED_MODEL


def _run(config: EngineConfig, names: tuple[str, ...], options: ServerOptions) -> None:
    from headrace.cli.open_files import allow_many_connections
    from headrace.server.event_loop import run
    from headrace.server.run import listen
    from headrace.server.tls import check_certificates

    check_certificates(options)
    allow_many_connections()
    listener = listen(options.host, options.port)
    print(f"Loading {config.model} ...", file=sys.stderr, flush=True)
    if run(_serve(config, names, options, listener)):
        os._exit(0)  # the threads of a download that nobody waits for would keep the process until it is done


async def _serve(config: EngineConfig, names: tuple[str, ...], options: ServerOptions, listener: socket.socket) -> bool:
    """Serve until stopped. True if the model is still being fetched."""
    from headrace.cli.engine_launcher import EngineProcess
    from headrace.server.engine_client import EngineClient
    from headrace.server.run import serve as serve_http
    from headrace.server.run import settle_memory
    from headrace.server.state import ServerState

    client = EngineClient(EngineProcess(config), options)
    state = ServerState(client, names, config.model, options, max_logprobs=config.max_logprobs)
    address = _url(listener, options)

    def on_ready() -> None:
        settle_memory()
        print(start_report(client.limits, address, names[0], options), file=sys.stderr, flush=True)

    await serve_http(state, listener, on_ready=on_ready)
    return client.loading


def start_report(ready: "Ready", url: str, name: str, options: ServerOptions) -> str:
    """What is served, in a few lines, and a command that talks to it."""
    width = max((len(label) for label, _ in ready.report), default=0)
    lines = [f"  {label:<{width}}  {text}" for label, text in ready.report]
    return "\n".join(
        [*lines, f"Ready at {url}/v1, for example:", "", *_example(url, name, options), "",
         f"Or talk to it in a terminal: {_chat_command(url, options)}", *_warning(options), "Stop with Ctrl-C."]
    )  # fmt: skip


def _example(url: str, name: str, options: ServerOptions) -> list[str]:
    """A curl command. Keys are not shown: their variable is."""
    trust = f" --cacert {shlex.quote(options.ssl_certfile)}" if options.ssl_certfile is not None else ""
    key = [f'    -H "Authorization: Bearer ${KEY_VARIABLES["api_key"]}" \\'] if options.api_key else []
    asked = {"model": name, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 100}
    head = f"  curl{trust} {url}/v1/chat/completions \\"
    return [head, "    -H 'Content-Type: application/json' \\", *key, f"    -d {shlex.quote(json.dumps(asked))}"]


def _chat_command(url: str, options: ServerOptions) -> str:
    trust = f"SSL_CERT_FILE={shlex.quote(options.ssl_certfile)} " if options.ssl_certfile is not None else ""
    key = f' --api-key "${KEY_VARIABLES["api_key"]}"' if options.api_key else ""
    return f"{trust}headrace chat --url {url}{key}"


def _warning(options: ServerOptions) -> list[str]:
    if options.local_only or options.api_key:
        return []
    return [f"Whoever can reach {options.host} may use it; --api-key lets in only who has a key."]


def _url(listener: socket.socket, options: ServerOptions) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    scheme = "https" if options.tls else "http"
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"
