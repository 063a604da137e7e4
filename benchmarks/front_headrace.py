"""Headrace's HTTP front over the fake engine, as `front.py` measures it."""

import argparse
import asyncio

from front_admit import measure_admission
from front_parts import MODEL, FakeEngine, load_text, run, say_ready
from headrace.server.app import create_app
from headrace.server.connection import EXTENSION, Connection
from headrace.server.engine_client import EngineClient
from headrace.server.http import AsgiApp, Receive, Scope, Send
from headrace.server.run import listen, serve, settle_memory
from headrace.server.state import ServerState


async def main(options: argparse.Namespace) -> None:
    """Serve until killed, or measure admissions."""
    text = load_text()
    client = EngineClient(FakeEngine(text, options.step_seconds))
    state = ServerState(client, (MODEL,), root="fake")
    if options.admit:
        await client.start()
        settle_memory()
        await measure_admission(connected(create_app(state)), text.tokenizer, options.admit)
        await client.stop()
    else:
        listener = listen("127.0.0.1", 0)

        def on_ready() -> None:
            settle_memory()
            say_ready(listener)

        await serve(state, listener, on_ready=on_ready)


def connected(app: AsgiApp) -> AsgiApp:
    """`app` as the server calls it: with a connection in the scope."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {EXTENSION: Connection(asyncio.Transport(), 0.0)}
        await app(scope, receive, send)

    return call


if __name__ == "__main__":
    run(main)
