"""`headrace bench throughput|latency`: the figures that come of known times."""

import pytest

from headrace.cli.bench.engine_load import EngineLoad, measure
from headrace.core.errors import HeadraceError
from headrace.core.limits import ContextOverflow
from headrace.core.outputs import CompletionOutput, RequestMetrics, RequestOutput


class KnownTimes:
    """An `LLM` whose requests wait 0.5 s for the first token and 0.25 s for each further one."""

    def __init__(self):
        self.batches = []

    def get_tokenizer(self):
        return self

    def __len__(self):
        return 50

    all_special_ids = (0, 1)

    def generate(self, prompts, params, *, use_tqdm):
        self.batches.append((prompts, params))
        last = 10.5 + 0.25 * (params.max_tokens - 1)
        times = RequestMetrics(arrival_time=10.0, first_token_time=10.5, last_token_time=last, finished_time=last)
        return [RequestOutput("", None, prompt, None, [CompletionOutput(0, "", [])], True, times) for prompt in prompts]


def test_figures_of_known_times():
    figures = measure(KnownTimes(), EngineLoad(batch_size=3, num_rounds=2, input_len=4, output_len=9)).figures()
    assert figures["median_ttft_ms"] == 500
    assert figures["p99_tpot_ms"] == 250
    assert figures["mean_e2el_ms"] == 2_500
    assert figures["completed"] == 6
    assert figures["total_token_throughput"] == pytest.approx(figures["request_throughput"] * 13)
    assert figures["output_throughput"] == pytest.approx(figures["request_throughput"] * 9)


def test_one_token_has_no_time_for_each_further_one():
    figures = measure(KnownTimes(), EngineLoad(batch_size=1, num_rounds=1, input_len=4, output_len=1)).figures()
    assert not [name for name in figures if "tpot" in name]


def test_prompts_are_new_each_round_and_hold_no_special_token():
    llm = KnownTimes()
    measure(llm, EngineLoad(batch_size=2, num_rounds=3, input_len=16, output_len=1))
    prompts = [prompt for batch, _ in llm.batches for prompt in batch]
    assert len({tuple(prompt) for prompt in prompts}) == len(prompts) == 8
    assert all(1 < token < 50 for prompt in prompts for token in prompt)
    assert all(params.ignore_eos for _, params in llm.batches)


def test_prompts_that_are_too_long_are_told_with_their_flag(monkeypatch):
    def refuse(*_, **__):
        raise ContextOverflow("The prompt has 9000 tokens", fix="Shorten the prompt")

    monkeypatch.setattr(KnownTimes, "generate", refuse)
    with pytest.raises(HeadraceError, match="Use a smaller --input-len"):
        measure(KnownTimes(), EngineLoad(batch_size=1, num_rounds=1, input_len=9_000, output_len=1))
