"""The metrics of the real server: what the real engine tells is counted, and Prometheus' own tool accepts the text."""

import subprocess

import openai
from headrace_server import HeadraceServer, wait_until
from scraped import Scrape, scrape

COLONS = "metric names should not contain ':'"
VLLMS_NAME = 'vllm:iteration_tokens_total non-counter metrics should not have "_total" suffix'
"""What promtool says of names that are vLLM's."""


def test_promtool_accepts_them(server: HeadraceServer) -> None:
    _complete(server, "A story about counting:")
    command = ["promtool", "check", "metrics"]
    text = server.get("/metrics").content
    check = subprocess.run(command, input=text, capture_output=True, check=False, timeout=60)
    complaints = [
        line for line in check.stderr.decode().splitlines() if not line.endswith(COLONS) and line != VLLMS_NAME
    ]
    assert complaints == []
    assert check.returncode in (0, 3), "3 is for complaints about style, others are for text that cannot be parsed"


def test_the_prefix_cache(server: HeadraceServer) -> None:
    """The second time, all full blocks of a prompt are found but for its last token's."""
    prompt = "The prefix cache is asked for this sentence twice, and knows it the second time. " * 12
    before = scrape(server.url)
    first = _complete(server, prompt)
    _wait_for(server, before, "vllm:prefix_cache_queries_total", first.prompt_tokens)
    between = scrape(server.url)
    second = _complete(server, prompt)
    _wait_for(server, between, "vllm:prefix_cache_queries_total", second.prompt_tokens)
    moved = scrape(server.url).changed_since(between)
    block_size = int(_cache_config(between)["block_size"])
    hits = (second.prompt_tokens - 1) // block_size * block_size
    assert hits > 0
    assert second.prompt_tokens_details is not None and second.prompt_tokens_details.cached_tokens == hits
    assert moved["vllm:prefix_cache_hits_total"] == moved["vllm:prompt_tokens_cached_total"] == hits
    assert moved["vllm:prompt_tokens_total"] == second.prompt_tokens
    assert moved["vllm:prompt_tokens_by_source_total{local_cache_hit}"] == hits
    assert moved["vllm:prompt_tokens_by_source_total{local_compute}"] == second.prompt_tokens - hits
    assert moved["vllm:generation_tokens_total"] == second.completion_tokens
    assert moved["vllm:iteration_tokens_total_sum"] == second.prompt_tokens - hits + second.completion_tokens - 1


def test_the_engine_says_how_it_was_built_and_how_long_it_took(server: HeadraceServer) -> None:
    now = scrape(server.url)
    config = _cache_config(now)
    expected = {"block_size", "cache_dtype", "enable_prefix_caching", "gpu_memory_utilization", "num_gpu_blocks"}
    assert expected <= config.keys()
    assert int(config["num_gpu_blocks"]) == now("headrace:kv_cache_blocks")
    phases = next(each for each in now.families if each.name == "headrace:startup_seconds").samples
    assert phases and all(sample.value >= 0 for sample in phases)
    assert sum(sample.value for sample in phases) > 0


def _complete(server: HeadraceServer, prompt: str) -> openai.types.CompletionUsage:
    model = server.client().models.list().data[0].id
    answer = server.client().completions.create(model=model, prompt=prompt, max_tokens=8, temperature=0)
    assert answer.usage is not None
    return answer.usage


def _wait_for(server: HeadraceServer, before: Scrape, name: str, by: float) -> None:
    """The engine tells its own counts a moment later than its tokens."""
    wait_until(lambda: scrape(server.url).changed_since(before).get(name) == by)


def _cache_config(now: Scrape) -> dict[str, str]:
    [sample] = next(each for each in now.families if each.name == "vllm:cache_config_info").samples
    return sample.labels
