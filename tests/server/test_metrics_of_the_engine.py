"""What a real engine tells arrives in the metrics exactly: in process, with a bigram table for a model."""

import torch
from bigram_engine import VOCAB_SIZE, BigramEngine
from scraped import Scrape

from headrace.core.sampling_params import SamplingParams
from headrace.server.dispatcher import Dispatcher
from headrace.server.metrics import ServerMetrics
from headrace.text.stream import RequestStream
from headrace.wire.messages import AbortRequests, AddRequest, Command


class Front:
    """A dispatcher before an engine, with nothing between them."""

    def __init__(self, **options: int) -> None:
        table = torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(7))
        self._engine = BigramEngine(table, **options).engine
        self._metrics = ServerMetrics()
        self._dispatcher = Dispatcher(self._send, self._metrics)

    def submit(self, prompt: list[int], told: list[int] | None = None, **params: int) -> None:
        wanted = SamplingParams(**{"seed": 1, "max_tokens": 5, **params})  # type: ignore[arg-type]
        told = told or []
        add = AddRequest(self._dispatcher.new_uids(wanted.n), prompt, wanted, output_token_ids=told)
        self._dispatcher.submit([(add, RequestStream("request", None, prompt, wanted, None, 0.0, told))])

    def run(self) -> Scrape:
        """Step until nothing is left to do; the metrics then."""
        while self._engine.has_work:
            if (step := self._engine.step()) is not None:
                self._dispatcher.on_step(step)
        self._metrics.on_stats(self._engine.stats())
        return Scrape(self._metrics.render(("model", "0"), "")[0].decode())

    def _send(self, command: Command) -> None:
        match command:
            case AddRequest():
                self._engine.add(command)
            case AbortRequests(uids=uids):
                self._engine.abort(uids)


def test_the_prefix_cache_and_where_prompts_come_from() -> None:
    front = Front()
    front.submit([5] * 20)
    now = front.run()
    assert (now("vllm:prefix_cache_queries_total"), now("vllm:prefix_cache_hits_total")) == (20, 0)
    front.submit([5] * 20, n=3)
    front.submit([5] * 12 + [6] * 12)
    now = front.run()
    assert (now("vllm:prefix_cache_queries_total"), now("vllm:prefix_cache_hits_total")) == (64, 16 + 8)
    assert now("vllm:prompt_tokens_total") == 64
    assert now("vllm:prompt_tokens_by_source_total", source="local_cache_hit") == 24
    assert now("vllm:prompt_tokens_by_source_total", source="local_compute") == 40
    assert now("vllm:prompt_tokens_cached_total") == 24
    assert now("vllm:generation_tokens_total") == 5 * 5
    assert now("vllm:request_success_total", finished_reason="length") == 5


def test_every_token_of_every_step_is_counted() -> None:
    """A prompt in three parts, each a step: their tokens are what the steps computed, the first output among them."""
    front = Front(budget=16)
    front.submit([1] * 40, max_tokens=4)
    now = front.run()
    assert now("headrace:engine_steps_total") == now("vllm:iteration_tokens_total_count") == 6
    assert now("vllm:iteration_tokens_total_sum") == 40 + 3


def test_what_continues_counts_its_prompt_alone() -> None:
    """The output that it came with was counted where it was told; what the cache knows of it is no part of a prompt."""
    front = Front()
    front.submit([5] * 20, max_tokens=16)
    front.run()
    front.submit([5] * 10, told=[5] * 9, max_tokens=12)
    now = front.run()
    assert now("vllm:prompt_tokens_total") == now("headrace:submitted_prompt_tokens_total") == 20 + 10
    assert now("vllm:prompt_tokens_by_source_total", source="local_cache_hit") == 10
    assert now("vllm:generation_tokens_total") == 16 + 3


def test_preemptions() -> None:
    front = Front(max_num_seqs=8, num_blocks=9)
    for token in range(4):
        front.submit([token] * 10, max_tokens=30)
    now = front.run()
    assert now("vllm:num_preemptions_total") == now("vllm:request_num_preemptions_sum") > 0
    assert now("vllm:generation_tokens_total") == now("vllm:request_generation_tokens_sum") == 120
