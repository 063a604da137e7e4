"""The flags of `headrace bench serve`, with the names of `vllm bench serve`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from headrace.cli.bench.figures import DEFAULT_PERCENTILES, METRICS
from headrace.cli.client.address import ServerAddress
from headrace.cli.option_fields import Flag
from headrace.cli.request_timeout import REQUEST_TIMEOUT_SECONDS, check_request_timeout, request_timeout_flag
from headrace.core.errors import HeadraceError

CHAT_ENDPOINT, COMPLETIONS_ENDPOINT = "/v1/chat/completions", "/v1/completions"
_SERVER, _LOAD, _PROMPTS, _REPORT = "Server", "Load", "Prompts", "Report"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchServeOptions:
    """What is sent where, how fast, and what is reported."""

    base_url: Annotated[str | None, Flag("Server, for example http://127.0.0.1:8000.", _SERVER)] = None
    host: Annotated[str, Flag("Its host, instead of --base-url.", _SERVER)] = "127.0.0.1"
    port: Annotated[int, Flag("Its port, instead of --base-url.", _SERVER)] = 8_000
    endpoint: Annotated[str, Flag("Route; or /v1/chat/completions.", _SERVER)] = COMPLETIONS_ENDPOINT
    backend: Annotated[
        Literal["openai", "vllm", "openai-chat"],
        Flag("openai-chat is short for --endpoint /v1/chat/completions.", _SERVER),
    ] = "openai"
    model: Annotated[str | None, Flag("Name of the model; by default the first that the server lists.", _SERVER)] = None
    api_key: Annotated[
        str | None,
        Flag("Key, if the server asks for one.", _SERVER, environment=("HEADRACE_API_KEY", "OPENAI_API_KEY")),
    ] = None
    num_prompts: Annotated[int, Flag("How many requests.", _LOAD)] = 100
    request_rate: Annotated[
        float, Flag("Requests a second, arriving at random whatever the answers do; inf for all at once.", _LOAD)
    ] = math.inf
    burstiness: Annotated[float, Flag("1: Poisson arrivals; less: in bursts; more: evenly.", _LOAD)] = 1.0
    max_concurrency: Annotated[
        int | None, Flag("Most requests open at once; with rate inf, the next is due when one ends.", _LOAD)
    ] = None
    request_timeout_seconds: Annotated[float, request_timeout_flag(_LOAD)] = REQUEST_TIMEOUT_SECONDS
    seed: Annotated[int, Flag("Where lengths, words and arrivals are drawn from.", _LOAD)] = 0
    dataset_name: Annotated[
        Literal["random", "sharegpt"],
        Flag("random: lengths as below; sharegpt: spread as in chats, or from --dataset-path.", _PROMPTS),
    ] = "random"
    dataset_path: Annotated[Path | None, Flag("A ShareGPT JSON file.", _PROMPTS)] = None
    random_input_len: Annotated[int, Flag("Tokens in each prompt.", _PROMPTS)] = 1_024
    random_output_len: Annotated[int, Flag("Tokens in each answer.", _PROMPTS)] = 128
    random_range_ratio: Annotated[
        float, Flag("Lengths are drawn from (1 - ratio) to (1 + ratio) times these.", _PROMPTS)
    ] = 0.0
    random_prefix_len: Annotated[int, Flag("Tokens at the start that all prompts share, in addition.", _PROMPTS)] = 0
    sharegpt_output_len: Annotated[int | None, Flag("Tokens in each answer, instead of the file's.", _PROMPTS)] = None
    temperature: Annotated[float, Flag("0 for the likeliest tokens.", _PROMPTS)] = 0.0
    ignore_eos: Annotated[
        bool, Flag("Make every answer as long as planned (vLLM's extension, not OpenAI's).", _PROMPTS)
    ] = False
    extra_body: Annotated[str | None, Flag("More fields of each request, as a JSON object.", _PROMPTS)] = None
    percentile_metrics: Annotated[str, Flag("Metrics to report, separated by commas.", _REPORT)] = ",".join(METRICS)
    metric_percentiles: Annotated[str, Flag("Percentiles to report.", _REPORT)] = ",".join(
        f"{percent:g}" for percent in DEFAULT_PERCENTILES
    )
    goodput: Annotated[
        tuple[str, ...],
        Flag("Bounds in ms, for example ttft:200 tpot:50; requests within all of them are counted.", _REPORT),
    ] = ()
    json_file: Annotated[Path | None, Flag("Also write the figures to this file.", _REPORT, spelling="--json")] = None
    save_result: Annotated[bool, Flag("Write them to --result-filename, or a name made of the time.", _REPORT)] = False
    result_dir: Annotated[Path, Flag("Directory for --save-result.", _REPORT)] = Path()
    result_filename: Annotated[str | None, Flag("File for --save-result.", _REPORT)] = None
    disable_tqdm: Annotated[bool, Flag("Show no progress.", _REPORT)] = False

    def __post_init__(self) -> None:
        for name in ("num_prompts", "random_input_len", "random_output_len", "max_concurrency", "sharegpt_output_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise _wrong(name, value, "It must be at least 1")
        check_request_timeout(self.request_timeout_seconds)
        if self.random_prefix_len < 0:
            raise _wrong("random_prefix_len", self.random_prefix_len, "It must be at least 0")
        if not self.endpoint.startswith("/"):
            raise _wrong("endpoint", self.endpoint, "It must begin with a slash, for example /v1/completions")
        if self.dataset_path is not None and self.dataset_name != "sharegpt":
            raise _wrong("dataset_path", self.dataset_path, "It goes with --dataset-name sharegpt")
        _ = self.percents, self.metrics, self.bounds, self.extra_fields, self.address

    @property
    def address(self) -> ServerAddress:
        """Where the server is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return ServerAddress.parse(self.base_url or f"http://{host}:{self.port}")

    @property
    def path(self) -> str:
        """The route that is asked."""
        chat = self.backend == "openai-chat" and self.endpoint == COMPLETIONS_ENDPOINT
        return CHAT_ENDPOINT if chat else self.endpoint

    @property
    def percents(self) -> tuple[float, ...]:
        """The percentiles to report."""
        try:
            percents = tuple(float(text) for text in self.metric_percentiles.split(","))
        except ValueError:
            percents = ()
        if percents and all(0 <= percent <= 100 for percent in percents):
            return percents
        raise _wrong("metric_percentiles", self.metric_percentiles, "They are numbers from 0 to 100, like 50,99")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics to report."""
        names = tuple(name.strip() for name in self.percentile_metrics.split(","))
        if unknown := [name for name in names if name not in METRICS]:
            raise _wrong("percentile_metrics", unknown[0], f"It must be of {', '.join(METRICS)}")
        return names

    @property
    def bounds(self) -> dict[str, float]:
        """Metric -> the most milliseconds that a good request has of it."""
        pairs = [part.partition(":") for text in self.goodput for part in text.replace(",", " ").split()]
        try:
            bounds = {name: float(value) for name, _, value in pairs}
        except ValueError:
            bounds = {"": 0.0}
        if bounds.keys() <= set(METRICS) - {"itl"}:
            return bounds
        raise _wrong("goodput", " ".join(self.goodput), "Bounds are of ttft, tpot or e2el, in ms: ttft:200 tpot:50")

    @property
    def extra_fields(self) -> dict[str, Any]:
        """More fields of each request."""
        try:
            extra = json.loads(self.extra_body or "{}")
        except ValueError:
            extra = None
        if isinstance(extra, dict):
            return extra
        raise _wrong("extra_body", self.extra_body, """It must be a JSON object, for example '{"top_p": 0.9}'""")


def _wrong(name: str, value: object, rule: str) -> HeadraceError:
    shown = repr(str(value)) if isinstance(value, str | Path) else value
    return HeadraceError(f"--{name.replace('_', '-')} is {shown}", rule=rule, param=name)
