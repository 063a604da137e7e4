"""The report of a run against a server: throughput, latencies, promises kept, and what went wrong, by status."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.cli.bench.figures import Distribution, percentile, print_report, write_json
from headrace.cli.bench.serve_options import BenchServeOptions
from headrace.cli.bench.server_load import RequestRecord

REJECTED = "429"
LATE_SECONDS = 0.01
"""From this delay on at the 99th percentile, times from the sending are reported too."""
BUSY_SHARE = 0.8
"""With more of a core than this used by the load generator, it may have been what was measured."""


@dataclass(frozen=True, slots=True)
class ServerRun:
    """What was measured: one record for each request that ended, and the seconds from the first due to the last end."""

    model: str
    records: Sequence[RequestRecord] = field(repr=False)
    seconds: float
    client_cpu_seconds: float
    interrupted: bool = False

    @property
    def answered(self) -> list[RequestRecord]:
        """The requests whose whole answer came."""
        return [record for record in self.records if record.ok]

    @property
    def late(self) -> bool:
        """Whether requests were sent noticeably later than they were due."""
        return percentile([record.delay for record in self.records], 99) > LATE_SECONDS

    def counts(self, bounds: dict[str, float]) -> dict[str, object]:
        """How much was done, and how much a second."""
        answered, seconds = self.answered, max(self.seconds, 1e-9)
        total_input = sum(record.prompt_tokens for record in answered)
        total_output = sum(record.output_tokens for record in answered)
        statuses = Counter(record.status for record in self.records if not record.ok)
        counts: dict[str, object] = {
            "duration": self.seconds,
            "completed": len(answered),
            "failed": len(self.records) - len(answered) - statuses[REJECTED],
            "rejected": statuses.pop(REJECTED, 0),
            "errors": dict(statuses),
            "total_input_tokens": total_input,
            "total_output_tokens": total_output,
            "request_throughput": len(answered) / seconds,
            "output_throughput": total_output / seconds,
            "total_token_throughput": (total_input + total_output) / seconds,
            "client_cpu_share": self.client_cpu_seconds / seconds,
        }
        if bounds:
            counts["request_goodput"] = sum(is_good(record, bounds) for record in answered) / seconds
        return counts

    def distributions(self) -> dict[str, Distribution]:
        """Metric -> its values, of the requests whose whole answer came."""
        answered = self.answered
        found = [
            Distribution.of_seconds("ttft", (record.ttft for record in answered)),
            Distribution.of_seconds("tpot", (record.tpot for record in answered)),
            Distribution.of_seconds("itl", (gap for record in answered for gap in record.gaps)),
            Distribution.of_seconds("e2el", (record.e2el for record in answered)),
        ]
        return {each.metric: each for each in found}

    def late_distributions(self) -> list[Distribution]:
        """How late requests were sent, and what their times would be had the clock started then."""
        answered = self.answered
        return [
            Distribution.of_seconds("send_delay", (record.delay for record in self.records)),
            Distribution.of_seconds("ttft_from_sending", (record.ttft - record.delay for record in answered)),
            Distribution.of_seconds("e2el_from_sending", (record.e2el - record.delay for record in answered)),
        ]


def is_good(record: RequestRecord, bounds: dict[str, float]) -> bool:
    """Whether an answer keeps every bound, in milliseconds; one of a single token has no time per further token."""
    times = {"ttft": record.ttft, "tpot": record.tpot or 0.0, "e2el": record.e2el}
    return all(times[metric] * 1_000 <= bound for metric, bound in bounds.items())


def print_run(run: ServerRun, options: BenchServeOptions) -> None:
    """Print the report, and on what it throws doubt."""
    counts = run.counts(options.bounds)
    errors = counts.pop("errors")
    shown = {label.replace("_", " "): value for label, value in counts.items()}
    found = run.distributions()
    chosen = [found[metric] for metric in options.metrics] + (run.late_distributions() if run.late else [])
    print_report(f"{options.address.url}{options.path}: {run.model}", shown, chosen, options.percents)
    if errors:
        print("errors:", errors, "for example:", next(record.error for record in run.records if not record.ok))
    if run.late:
        print("Requests were sent later than they were due; the times count from when they were due.")
    if run.interrupted:
        print(f"Interrupted: {len(run.records)} of {options.num_prompts} requests had ended.")
    if run.client_cpu_seconds > BUSY_SHARE * run.seconds:
        print("The load generator used most of a core: it may have been slower than the server.")


def result_file(options: BenchServeOptions) -> Path | None:
    """Where the figures go, if anywhere."""
    if options.json_file is not None or not options.save_result:
        return options.json_file
    name = options.result_filename or f"headrace-serve-{time.strftime('%Y%m%d-%H%M%S')}.json"
    return options.result_dir / name


def save(path: Path, run: ServerRun, options: BenchServeOptions) -> None:
    """Write the report as JSON. An infinite rate is the string "inf", as JSON has no such number."""
    endless = options.request_rate == float("inf")
    report: dict[str, object] = {
        "benchmark": "serve",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "base_url": options.address.url,
        "endpoint": options.path,
        "model_id": run.model,
        "num_prompts": options.num_prompts,
        "request_rate": "inf" if endless else options.request_rate,
        "burstiness": options.burstiness,
        "max_concurrency": options.max_concurrency,
        "dataset_name": options.dataset_name,
        "seed": options.seed,
        "interrupted": run.interrupted,
    }
    report |= run.counts(options.bounds)
    found = run.distributions()
    for distribution in [found[metric] for metric in options.metrics] + run.late_distributions():
        report |= distribution.figures(options.percents)
    write_json(path, report)
