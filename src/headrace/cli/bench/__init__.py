"""`headrace bench`: load on a server, or on the engine alone."""

import typer

from headrace.cli.bench.engine_commands import latency, throughput
from headrace.cli.bench.serve_command import serve
from headrace.cli.grouped_help import command_group

_COMMANDS = {
    serve: "Load a running server: how long its users wait.",
    throughput: "The engine alone, with many prompts at once.",
    latency: "The engine alone, with one prompt or a few.",
}
"""Command -> what the list of commands says of it."""


def bench_app() -> typer.Typer:
    """The group of benchmark commands."""
    return command_group("Measure a running server, or the engine alone.", _COMMANDS)
