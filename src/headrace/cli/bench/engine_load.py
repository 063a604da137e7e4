"""Runs prompts of random tokens through an `LLM` and takes the times that each request reports."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.cli.bench.figures import DEFAULT_PERCENTILES, Distribution
from headrace.core.errors import HeadraceError
from headrace.core.limits import ContextOverflow
from headrace.core.outputs import RequestMetrics, RequestOutput
from headrace.core.sampling_params import SamplingParams

if TYPE_CHECKING:
    from headrace.engine.llm import LLM
    from headrace.text.tokenizer import Tokenizer

WARM_UP_TOKENS = 8


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """`num_rounds` times a batch of `batch_size` prompts, of `input_len` tokens in and `output_len` out."""

    batch_size: int
    num_rounds: int
    input_len: int
    output_len: int

    @property
    def num_requests(self) -> int:
        """How many prompts there are in all."""
        return self.batch_size * self.num_rounds


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What a load took: the seconds of its rounds together, and each request's own times."""

    load: EngineLoad
    seconds: float
    metrics: Sequence[RequestMetrics] = field(repr=False)

    def counts(self) -> dict[str, float]:
        """How much was done, and how much a second."""
        load = self.load
        total_input, total_output = load.num_requests * load.input_len, load.num_requests * load.output_len
        return {
            "duration": self.seconds,
            "completed": load.num_requests,
            "total_input_tokens": total_input,
            "total_output_tokens": total_output,
            "request_throughput": load.num_requests / self.seconds,
            "output_throughput": total_output / self.seconds,
            "total_token_throughput": (total_input + total_output) / self.seconds,
        }

    def distributions(self) -> list[Distribution]:
        """Time to the first token, for each further one, and to the end."""
        further = self.load.output_len - 1
        decoding = (each.last_token_time - each.first_token_time for each in self.metrics if further)
        return [
            Distribution.of_seconds("ttft", (each.first_token_time - each.arrival_time for each in self.metrics)),
            Distribution.of_seconds("tpot", (seconds / further for seconds in decoding)),
            Distribution.of_seconds("e2el", (each.last_token_time - each.arrival_time for each in self.metrics)),
        ]

    def figures(self) -> dict[str, float]:
        """Everything, under the names of the JSON report."""
        figures = self.counts()
        for distribution in self.distributions():
            figures |= distribution.figures(DEFAULT_PERCENTILES)
        return figures


def measure(llm: "LLM", load: EngineLoad) -> EngineRun:
    """Run the load after a short warm-up. Prompts differ from round to round, so that no cached prefix helps."""
    source = random.Random(0)
    ordinary = _ordinary_tokens(llm.get_tokenizer())
    _run_round(llm, _prompts(source, ordinary, load), WARM_UP_TOKENS)
    outputs: list[RequestOutput] = []
    seconds = 0.0
    for _ in range(load.num_rounds):
        prompts = _prompts(source, ordinary, load)
        began = time.perf_counter()
        outputs += _run_round(llm, prompts, load.output_len)
        seconds += time.perf_counter() - began
    return EngineRun(load, seconds, [output.metrics for output in outputs if output.metrics is not None])


def _ordinary_tokens(tokenizer: "Tokenizer") -> list[int]:
    special = set(tokenizer.all_special_ids)
    return [token_id for token_id in range(len(tokenizer)) if token_id not in special]


def _prompts(source: random.Random, ordinary: Sequence[int], load: EngineLoad) -> list[list[int]]:
    return [source.choices(ordinary, k=load.input_len) for _ in range(load.batch_size)]


def _run_round(llm: "LLM", prompts: list[list[int]], output_len: int) -> list[RequestOutput]:
    params = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True, detokenize=False)
    try:
        return llm.generate(prompts, params, use_tqdm=False)
    except ContextOverflow as error:
        fix = "Use a smaller --input-len or --output-len, or raise --max-model-len"
        raise HeadraceError(error.what, rule=error.rule, fix=fix, param="input_len") from None
