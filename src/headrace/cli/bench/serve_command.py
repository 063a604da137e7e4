"""`headrace bench serve`: load on a server that speaks OpenAI's API, ours or another."""

from typing import TYPE_CHECKING

from headrace.cli.bench.serve_options import BenchServeOptions
from headrace.cli.option_fields import with_options

if TYPE_CHECKING:
    from headrace.cli.bench.server_report import ServerRun


@with_options(BenchServeOptions)
def serve(options: BenchServeOptions) -> None:
    """Load a running server, ours or another that speaks OpenAI's API, and report how long its users wait.

    \b
    Start a server first, in another terminal:
      headrace serve
    Then, for example, everything at once; or 4 requests a second with lengths as in chats, and how many of
    them get their first token within 500 ms and each further one within 100 ms:
      headrace bench serve --num-prompts 50 --random-input-len 128
      headrace bench serve --dataset-name sharegpt --request-rate 4 --goodput ttft:500 tpot:100

    Times are in milliseconds: to the first token (ttft), for each further one (tpot), between two of them (itl), and
    to the end (e2el). A request's clock starts when it was due, also if it could not be sent in time.
    """
    from headrace.cli.bench.figures import check_writable
    from headrace.cli.bench.server_report import print_run, result_file, save

    path = result_file(options)
    if path is not None:
        check_writable(path, "--json" if options.json_file else "--result-dir")
    run = _measure(options)
    print_run(run, options)
    if path is not None:
        save(path, run, options)
    if run.interrupted:
        raise KeyboardInterrupt


def _measure(options: BenchServeOptions) -> "ServerRun":
    import asyncio

    from headrace.cli.bench.server_run import ServerBenchmark

    benchmark = ServerBenchmark(options)
    try:
        asyncio.run(benchmark.run())
    except KeyboardInterrupt:
        if not benchmark.records:
            raise
    return benchmark.result()
