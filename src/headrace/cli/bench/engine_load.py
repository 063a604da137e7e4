"""Runs prompts of random tokens through an `LLM` and makes figures of the times that each request reports."""

import math
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.core.outputs import RequestMetrics, RequestOutput
from headrace.core.sampling_params import SamplingParams

if TYPE_CHECKING:
    from headrace.engine.llm import LLM
    from headrace.text.tokenizer import Tokenizer

PERCENTILES = (50, 90, 99)
WARM_UP_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """`num_rounds` times a batch of `batch_size` prompts, of `input_len` tokens in and `output_len` out."""

    batch_size: int
    num_rounds: int
    input_len: int
    output_len: int


def measure(llm: "LLM", load: Load) -> dict[str, float]:
    """Run the load after a short warm-up. Prompts differ from round to round, so that no cached prefix helps."""
    source = random.Random(0)
    ordinary = _ordinary_tokens(llm.get_tokenizer())
    _run_round(llm, _prompts(source, ordinary, load), WARM_UP_TOKENS)
    outputs: list[RequestOutput] = []
    round_seconds = []
    for _ in range(load.num_rounds):
        prompts = _prompts(source, ordinary, load)
        began = time.perf_counter()
        outputs += _run_round(llm, prompts, load.output_len)
        round_seconds.append(time.perf_counter() - began)
    return _figures(load, round_seconds, [output.metrics for output in outputs if output.metrics is not None])


def as_table(title: str, figures: dict[str, float]) -> None:
    """Print the figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,.4f}" if value < 10 else f"{value:,.1f}")
    Console().print(table)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; NaN for no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.nan


def _ordinary_tokens(tokenizer: "Tokenizer") -> list[int]:
    special = set(tokenizer.all_special_ids)
    return [token_id for token_id in range(len(tokenizer)) if token_id not in special]


def _prompts(source: random.Random, ordinary: Sequence[int], load: Load) -> list[list[int]]:
    return [source.choices(ordinary, k=load.input_len) for _ in range(load.batch_size)]


def _run_round(llm: "LLM", prompts: list[list[int]], output_len: int) -> list[RequestOutput]:
    params = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True, detokenize=False)
    return llm.generate(prompts, params, use_tqdm=False)


def _figures(load: Load, round_seconds: Sequence[float], metrics: Sequence[RequestMetrics]) -> dict[str, float]:
    total_seconds = sum(round_seconds)
    num_requests = load.batch_size * load.num_rounds
    figures = {
        "requests_per_second": num_requests / total_seconds,
        "output_tokens_per_second": num_requests * load.output_len / total_seconds,
        "total_tokens_per_second": num_requests * (load.input_len + load.output_len) / total_seconds,
        "batch_seconds_min": min(round_seconds),
    }
    first = [each.first_token_time - each.arrival_time for each in metrics]
    further = (
        [(each.last_token_time - each.first_token_time) / (load.output_len - 1) for each in metrics]
        if load.output_len > 1
        else []
    )
    return figures | _percentiles("time_to_first_token_seconds", first) | _percentiles("seconds_per_token", further)


def _percentiles(name: str, values: Iterable[float]) -> dict[str, float]:
    known = list(values)
    return {f"{name}_p{percent}": percentile(known, percent) for percent in PERCENTILES} if known else {}
