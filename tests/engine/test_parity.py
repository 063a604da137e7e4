"""The embedded model against transformers, both in float32: 50 prompts, whole, chunked, cached and preempted.

The reference reads prompt and answer together and says at each position what it would have taken. Where it disagrees,
its two likeliest tokens must be closer than 1e-4 (docs/architecture.md, "equality of text"); after that the texts may
differ, so the comparison of that prompt ends.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from headrace import LLM, RequestOutput, SamplingParams

TIE = 1e-4
THINGS = ["river", "turbine", "copper", "harvest", "lantern", "museum", "signal", "orbit", "marble", "thunder"]
PLACES = ["velvet", "ancient", "method", "number", "garden", "window", "letter", "engine", "summer", "quiet"]
PROMPTS = [
    *(f"Write about the {THINGS[i % 10]} and the {PLACES[(7 * i + i // 10) % 10]}." for i in range(40)),
    "The capital of France is",
    "1, 2, 3, 5, 8, 13,",
    "def fibonacci(n):",
    "Ωμέγα και άλφα",
    "Ich heiße",
    "🙂 means",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "a",
    "The " * 120,
    " ",
]
GREEDY = SamplingParams(temperature=0, max_tokens=16, logprobs=0)

Reference = Callable[[list[int]], torch.Tensor]


@pytest.fixture(scope="module")
def reference(smollm2_of_transformers: PreTrainedModel) -> Reference:
    """Log probabilities [T, V] by transformers' own reading of the same file."""
    model = smollm2_of_transformers
    cache: dict[tuple[int, ...], torch.Tensor] = {}

    @torch.inference_mode()
    def logprobs(ids: list[int]) -> torch.Tensor:
        key = tuple(ids)
        if key not in cache:
            cache[key] = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return cache[key]

    return logprobs


@pytest.fixture(scope="module")
def tight(smollm2_gguf: Path) -> Iterator[LLM]:
    """Few blocks and a small token budget: everything is chunked, mixed, and some of it preempted."""
    with LLM(
        str(smollm2_gguf), dtype="float32", quantization="none", max_model_len=192, max_num_seqs=8, block_size=8,
        max_num_batched_tokens=24, num_gpu_blocks_override=26, enable_prefix_caching=False,
    ) as llm:  # fmt: skip
        yield llm


def assert_equal(output: RequestOutput, reference: Reference) -> None:
    prompt, answer = output.prompt_token_ids, output.outputs[0]
    expected = reference(prompt + answer.token_ids)
    for i, token in enumerate(answer.token_ids):
        row = expected[len(prompt) + i - 1]
        best = row.topk(2)
        if token != int(best.indices[0]):
            assert float(best.values[0] - best.values[1]) < TIE, f"{output.prompt!r} differs at token {i}"
            return
        assert abs(answer.logprobs[i][token].logprob - float(row[token])) < TIE


def test_greedy_text_and_logprobs_equal_transformers(llm: LLM, reference: Reference) -> None:
    for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False):
        assert_equal(output, reference)


def test_they_do_with_cached_prefixes(llm: LLM, reference: Reference) -> None:
    before = llm.get_metrics().prefix_cache_hits
    for _ in range(2):
        [output] = llm.generate([PROMPTS[48]], GREEDY, use_tqdm=False)
        assert_equal(output, reference)
    assert output.num_cached_tokens >= 96
    assert llm.get_metrics().prefix_cache_hits > before


def test_they_do_chunked_mixed_and_preempted(tight: LLM, reference: Reference) -> None:
    params = [GREEDY if i % 2 else SamplingParams(temperature=0, max_tokens=40, logprobs=0) for i in range(24)]
    for output in tight.generate(PROMPTS[26:], params, use_tqdm=False):
        assert_equal(output, reference)
    assert tight.get_metrics().num_preemptions > 0


def test_prompt_logprobs_equal_transformers(llm: LLM, reference: Reference) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    [output] = llm.generate([PROMPTS[0]], params, use_tqdm=False)
    expected = reference(output.prompt_token_ids)
    for i, token in enumerate(output.prompt_token_ids[1:]):
        assert abs(output.prompt_logprobs[i + 1][token].logprob - float(expected[i, token])) < TIE
