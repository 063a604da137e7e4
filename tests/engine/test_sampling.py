"""Sampling parameters, each against its definition, on logits that are known."""

import math
from collections import Counter

import pytest
import torch
from bigram_engine import VOCAB_SIZE, BigramEngine
from torch import Tensor

from headrace.core.sampling_params import SamplingParams

DRAWS = 4_000


def params(**kwargs: object) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 1, "temperature": 1.0, **kwargs})


def draw(bigram: BigramEngine, token: int, **kwargs: object) -> Counter[int]:
    """The next token after `token`, drawn many times with different seeds."""
    uids = [bigram.add([token], params(seed=seed, **kwargs))[0] for seed in range(DRAWS)]
    found = bigram.run()
    return Counter(found[uid].tokens[0] for uid in uids)


def assert_distribution(counts: Counter[int], probabilities: Tensor) -> None:
    """A chi-square test that a right sampler fails once in millions of runs; the seeds are fixed, so never by luck."""
    assert set(counts) <= set(probabilities.nonzero().flatten().tolist()), "a token of probability 0 was drawn"
    expected = probabilities * DRAWS
    big = expected >= 5
    observed = torch.tensor([counts[i] for i in range(VOCAB_SIZE)], dtype=torch.float32)
    statistic = float(((observed - expected)[big] ** 2 / expected[big]).sum())
    freedom = int(big.sum()) - 1
    assert statistic < freedom + 5.5 * math.sqrt(2 * max(freedom, 1)) + 5


def test_greedy_takes_the_most_likely(bigram: BigramEngine, table: Tensor) -> None:
    found = bigram.one([3], params(temperature=0, max_tokens=20))
    expected = [3]
    for _ in range(20):
        expected.append(int(table[expected[-1]].argmax()))
    assert found.tokens == expected[1:]
    assert found.finish == "length"


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_temperature(bigram: BigramEngine, table: Tensor, temperature: float) -> None:
    assert_distribution(draw(bigram, 5, temperature=temperature), (table[5] / temperature).softmax(-1))


def test_top_k(bigram: BigramEngine, table: Tensor) -> None:
    expected = torch.zeros(VOCAB_SIZE)
    values, ids = table[5].topk(4)
    expected[ids] = values.softmax(-1)
    assert_distribution(draw(bigram, 5, top_k=4), expected)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_top_p(bigram: BigramEngine, table: Tensor, top_p: float) -> None:
    """The smallest set of the likeliest tokens whose mass reaches top_p."""
    probabilities, ids = table[5].softmax(-1).sort(descending=True)
    kept = probabilities.cumsum(-1) - probabilities < top_p
    expected = torch.zeros(VOCAB_SIZE)
    expected[ids[kept]] = probabilities[kept] / probabilities[kept].sum()
    assert_distribution(draw(bigram, 5, top_p=top_p), expected)


def test_top_p_beyond_the_candidates() -> None:
    """A flat distribution over a vocabulary larger than the candidates: the row is sorted whole."""
    flat = BigramEngine(torch.zeros(2048, 2048))
    uids = [flat.add([0], params(seed=seed, top_p=0.9))[0] for seed in range(300)]
    found = flat.run()
    assert len({found[uid].tokens[0] for uid in uids}) > 230
    assert max(Counter(found[uid].tokens[0] for uid in uids).values()) < 6


def test_min_p(bigram: BigramEngine, table: Tensor) -> None:
    probabilities = table[5].softmax(-1)
    kept = torch.where(probabilities >= 0.2 * probabilities.max(), probabilities, 0.0)
    assert_distribution(draw(bigram, 5, min_p=0.2), kept / kept.sum())


def test_a_seed_gives_the_same_tokens_whatever_else_runs(table: Tensor) -> None:
    """Alone, among others, in chunks and with two steps in flight: the noise depends on seed and position only."""
    wanted = params(seed=11, max_tokens=12)
    alone = BigramEngine(table).one([1, 2, 3], wanted).tokens
    for depth, budget in ((1, 64), (2, 64), (1, 20)):
        crowd = BigramEngine(table, max_num_seqs=16, budget=budget, depth=depth)
        for i in range(10):
            crowd.add([i] * (i + 1), params(max_tokens=9, top_p=0.8, top_k=i))
        [uid] = crowd.add([1, 2, 3], wanted)
        assert crowd.run()[uid].tokens == alone
    assert BigramEngine(table).one([1, 2, 3], params(seed=12, max_tokens=12)).tokens != alone


def test_requests_without_a_seed_differ_and_repeat_with_the_engine(table: Tensor) -> None:
    def run() -> list[list[int]]:
        bigram = BigramEngine(table)
        uids = [bigram.add([1], params(max_tokens=12))[0] for _ in range(3)]
        found = bigram.run()
        return [found[uid].tokens for uid in uids]

    first = run()
    assert len({tuple(tokens) for tokens in first}) == 3
    assert run() == first


def test_n_gives_different_sequences(bigram: BigramEngine) -> None:
    uids = bigram.add([1, 2, 3, 4, 5, 6, 7, 8, 9], params(n=5, seed=3, max_tokens=10))
    found = bigram.run()
    assert len({tuple(found[uid].tokens) for uid in uids}) == 5
    assert [len(found[uid].tokens) for uid in uids] == [10] * 5


@pytest.mark.parametrize("depth", [1, 2])
def test_penalties(table: Tensor, depth: int) -> None:
    """By the formulas, step by step, with prompt tokens counted for repetition only."""
    options = {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.7}
    found = BigramEngine(table, depth=depth).one([3, 4, 3], params(temperature=0, max_tokens=25, **options))
    prompt, output = [3, 4, 3], []
    for _ in range(25):
        logits = table[(prompt + output)[-1]].clone()
        for token in set(prompt + output):
            logits[token] = logits[token] / 1.3 if logits[token] > 0 else logits[token] * 1.3
        for token, count in Counter(output).items():
            logits[token] -= 0.4 * count + 0.7
        output.append(int(logits.argmax()))
    assert found.tokens == output


def test_logit_bias_and_allowed_tokens(bigram: BigramEngine, table: Tensor) -> None:
    worst = int(table[5].argmin())
    assert bigram.one([5], params(temperature=0, logit_bias={worst: 100})).tokens == [worst]
    best = int(table[5].argmax())
    assert bigram.one([5], params(temperature=0, logit_bias={best: -100})).tokens != [best]
    found = draw(bigram, 5, allowed_token_ids=[2, 9])
    assert set(found) == {2, 9}


def test_bad_words_of_one_and_several_tokens(bigram: BigramEngine, table: Tensor) -> None:
    free = bigram.one([3], params(temperature=0, max_tokens=8)).tokens
    single = bigram.one([3], params(temperature=0, max_tokens=8), bad_words_token_ids=[[free[0]]]).tokens
    assert free[0] not in single
    pair = bigram.one([3], params(temperature=0, max_tokens=8), bad_words_token_ids=[free[1:3]]).tokens
    assert pair[:2] == free[:2] and pair[2] != free[2]


def test_stop_tokens_and_eos(bigram: BigramEngine) -> None:
    free = bigram.one([3], params(temperature=0, max_tokens=8)).tokens
    end = next(token for i, token in enumerate(free) if token not in free[:i] and i > 0)
    at = free.index(end)
    stopped = bigram.one([3], params(temperature=0, max_tokens=8, stop_token_ids=[end]))
    assert (stopped.tokens, stopped.finish, stopped.stop_token) == (free[: at + 1], "stop", end)
    ended = bigram.one([3], params(temperature=0, max_tokens=8), eos=end)
    assert (ended.tokens, ended.finish, ended.stop_token) == (free[: at + 1], "stop", None)
    ignored = bigram.one([3], params(temperature=0, max_tokens=8, ignore_eos=True), eos=end)
    assert ignored.tokens == free


@pytest.mark.parametrize("depth", [1, 2])
def test_min_tokens_keeps_the_end_away(table: Tensor, depth: int) -> None:
    """EOS is never made, rather than made and ignored, until there are enough tokens."""
    everything_ends = table.clone()
    everything_ends[:, 0] = 50.0
    found = BigramEngine(everything_ends, depth=depth).one(
        [3], params(temperature=0, min_tokens=5, max_tokens=9), eos=0
    )
    assert 0 not in found.tokens[:5] and found.tokens[5] == 0 and found.finish == "stop"


def test_logprobs_are_those_of_the_raw_logits(bigram: BigramEngine, table: Tensor) -> None:
    found = bigram.one([5], params(temperature=0.3, top_k=3, seed=1, logprobs=4, logit_bias={1: 5.0}))
    expected = table[5].log_softmax(-1)
    entry = found.logprobs[0]
    chosen = found.tokens[0]
    assert next(iter(entry)) == chosen
    assert entry[chosen].logprob == pytest.approx(float(expected[chosen]), abs=1e-5)
    assert entry[chosen].rank == int((expected > expected[chosen]).sum()) + 1
    top = expected.topk(4)
    assert {i: pytest.approx(v, abs=1e-5) for i, v in zip(top.indices.tolist(), top.values.tolist(), strict=True)} == {
        token: item.logprob for token, item in entry.items() if token in top.indices.tolist()
    }


def test_logprobs_minus_one_is_the_whole_vocabulary(bigram: BigramEngine) -> None:
    entry = bigram.one([5], params(logprobs=-1)).logprobs[0]
    assert len(entry) == VOCAB_SIZE
    assert sum(math.exp(item.logprob) for item in entry.values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("budget", [64, 7])
def test_prompt_logprobs(table: Tensor, budget: int) -> None:
    """One entry a prompt token but for the first, chunked or not, cached prefix or not."""
    bigram = BigramEngine(table, max_num_seqs=4, budget=budget)
    prompt = [(i * 7) % VOCAB_SIZE for i in range(30)]
    for _ in range(2):
        entries = bigram.one(prompt, params(prompt_logprobs=2)).prompt_logprobs
        assert entries[0] is None and len(entries) == 30
        for i in range(1, 30):
            expected = table[prompt[i - 1]].log_softmax(-1)
            assert entries[i][prompt[i]].logprob == pytest.approx(float(expected[prompt[i]]), abs=1e-5)
            assert len(entries[i]) in (2, 3)


def test_one_forward_call_a_step(table: Tensor) -> None:
    """Prefill chunks and decodes of all sequences share one call."""
    bigram = BigramEngine(table, max_num_seqs=8, budget=16)
    for i in range(8):
        bigram.add([i] * (5 * i + 1), params(temperature=0, max_tokens=6))
    bigram.run()
    assert bigram.model.forward_calls == bigram.steps
