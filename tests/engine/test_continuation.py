"""A request that continues an answer goes on as the one that was cut would have."""

import pytest
from bigram_engine import BigramEngine
from torch import Tensor

from headrace.core.errors import HeadraceError
from headrace.core.sampling_params import SamplingParams

PROMPT = [3, 4, 3, 9, 9, 1, 2, 3, 4, 5, 6]
LENGTH = 24


def params(**kwargs: object) -> SamplingParams:
    return SamplingParams(**{"max_tokens": LENGTH, "temperature": 1.0, "seed": 5, **kwargs})


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0},
        {"top_p": 0.8, "top_k": 9, "min_p": 0.01},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.7},
        {"temperature": 0, "frequency_penalty": 0.9},
        {"min_tokens": 15, "stop_token_ids": list(range(8)), "temperature": 3.0},
        {"logit_bias": {2: -5.0, 7: 4.0, 8: 3.0}, "presence_penalty": 1.5},
    ],
    ids=str,
)
def test_every_cut_continues_as_if_there_were_none(table: Tensor, options: dict[str, object], depth: int) -> None:
    """Noise, penalties, min_tokens, bad words and the length count what was said before the cut."""
    bigram = BigramEngine(table, depth=depth)
    extra = {"eos": 2, "bad_words_token_ids": [[7, 8], [11]]}
    whole = bigram.one(PROMPT, params(**options), **extra)
    assert len(whole.tokens) > 10
    for cut in range(1, len(whole.tokens)):
        rest = bigram.one(PROMPT, params(**options), output_token_ids=whole.tokens[:cut], **extra)
        assert rest.tokens == whole.tokens[cut:]
        assert (rest.finish, rest.stop_token) == (whole.finish, whole.stop_token)


def test_continued_requests_are_preempted_and_chunked_like_others(table: Tensor) -> None:
    """A cache that is too small for all of them, and a budget that cuts what they came with into chunks."""
    whole = BigramEngine(table).one(PROMPT, params(frequency_penalty=0.5)).tokens
    small = BigramEngine(table, max_num_seqs=8, budget=8, num_blocks=9)
    cuts = {small.add(PROMPT, params(frequency_penalty=0.5), output_token_ids=whole[:cut])[0]: cut for cut in range(20)}
    found = small.run()
    assert small.engine.stats().num_preemptions > 0
    assert all(found[uid].tokens == whole[cut:] for uid, cut in cuts.items())


def test_logprobs_of_a_continued_request(bigram: BigramEngine) -> None:
    whole = bigram.one(PROMPT, params(logprobs=2))
    rest = bigram.one(PROMPT, params(logprobs=2), output_token_ids=whole.tokens[:9])
    assert [list(entry) for entry in rest.logprobs] == [list(entry) for entry in whole.logprobs[9:]]


def test_what_was_said_can_come_from_the_prefix_cache(bigram: BigramEngine) -> None:
    whole = bigram.one(PROMPT, params(seed=77)).tokens
    before = bigram.engine.stats()
    bigram.add(PROMPT, params(seed=77), output_token_ids=whole[:20])
    first = bigram.engine.step()
    assert first is not None and list(first.cached_tokens.values()) == [len(PROMPT)]  # never more than the prompt
    bigram.run()
    after = bigram.engine.stats()
    assert after.prefix_cache_queries - before.prefix_cache_queries == len(PROMPT) + 20
    assert after.prefix_cache_hits - before.prefix_cache_hits == 24  # the full blocks before the last token


@pytest.mark.parametrize(
    ("options", "output", "what"),
    [
        ({"n": 2}, [1], "n is 2"),
        ({"prompt_logprobs": 1}, [1], "prompt_logprobs is 1"),
        ({}, [1, 32], "token id 32"),
        ({}, [-1], "token id -1"),
        ({}, [1] * LENGTH, f"has {LENGTH} tokens"),
        ({"max_tokens": None}, [1] * 250, "has 250 tokens"),
        ({}, [1, 30], "token 30"),
        ({}, [30, 1], "token 30"),
        ({"stop_token_ids": [2]}, [1, 2], "token 2"),
    ],
    ids=str,
)
def test_what_cannot_be_continued_is_refused(
    bigram: BigramEngine, options: dict[str, object], output: list[int], what: str
) -> None:
    with pytest.raises(HeadraceError, match=what) as caught:
        bigram.add(PROMPT, params(**options), eos=30, output_token_ids=output)
    assert caught.value.param in ("n", "prompt_logprobs", "output_token_ids")
    assert not bigram.engine.has_work and bigram.engine.stats().num_waiting == 0


def test_an_end_that_did_not_count_is_no_end(bigram: BigramEngine) -> None:
    """EOS that was ignored, and stop tokens in a place that min_tokens covers, do not end an answer."""
    assert bigram.one(PROMPT, params(ignore_eos=True), eos=30, output_token_ids=[1, 30]).tokens
    assert bigram.one(PROMPT, params(stop_token_ids=[1], min_tokens=3), output_token_ids=[1, 5]).tokens
