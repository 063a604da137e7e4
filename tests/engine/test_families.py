"""Every family through the whole engine, against transformers: chunked, mixed, preempted, cached and forked at once."""

from pathlib import Path

import pytest
import torch
from model_configs import CONFIGS, SIZES
from model_parity import random_tokens, reference_logprobs, save_random_model

from headrace.core.config import EngineConfig
from headrace.core.sampling_params import SamplingParams
from headrace.engine.build import load_engine
from headrace.engine.engine import Engine
from headrace.wire.messages import AddRequest

TIE = 1e-4
SHARED = 17
GREEDY = SamplingParams(temperature=0, max_tokens=14, logprobs=0)


def prompts() -> list[list[int]]:
    """Some share a beginning of more than two blocks."""
    start = random_tokens(SHARED, SIZES["vocab_size"], seed=99)
    own = [random_tokens(3 + 4 * i, SIZES["vocab_size"], seed=i) for i in range(8)]
    return own + [start + tokens[:9] for tokens in own]


def run(engine: Engine, requests: dict[int, tuple[list[int], SamplingParams]]) -> dict[int, list[tuple[int, float]]]:
    """(token, logprob) of each sequence."""
    for uid, (prompt, params) in requests.items():
        engine.add(AddRequest([uid + i for i in range(params.n)], prompt, params))
    found: dict[int, list[tuple[int, float]]] = {}
    while engine.has_work:
        output = engine.step()
        for row, entry in zip(output.rows(), output.logprobs or [], strict=False) if output else ():
            found.setdefault(row[0], []).append((row[1], entry[row[1]].logprob))
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_a_family_through_the_engine(name: str, tmp_path: Path) -> None:
    reference = save_random_model(CONFIGS[name], tmp_path)
    config = EngineConfig.from_kwargs(
        model=str(tmp_path), dtype="float32", max_model_len=64, block_size=8, max_num_seqs=6, device="cpu",
        max_num_batched_tokens=20, num_gpu_blocks_override=14,
    )  # fmt: skip
    engine = load_engine(config, with_tokenizer=False).engine
    sampled = SamplingParams(n=3, seed=4, max_tokens=10, logprobs=0)
    requests = {10 * i: (prompt, sampled if i % 5 == 0 else GREEDY) for i, prompt in enumerate(prompts())}
    found = run(engine, requests) | run(engine, {1000 + uid: request for uid, request in requests.items()})
    stats = engine.stats()
    assert stats.num_preemptions > 0 and stats.prefix_cache_hits > 0
    assert stats.num_free_blocks == stats.num_blocks
    for uid, made in found.items():
        prompt, params = requests[uid % 1000 // 10 * 10]
        check(prompt, made, reference_logprobs(reference, prompt + [token for token, _ in made]), params.greedy)


def check(prompt: list[int], made: list[tuple[int, float]], expected: torch.Tensor, greedy: bool) -> None:
    """Each token's logprob is the reference's, and a greedy one is its likeliest, ties apart."""
    for i, (token, logprob) in enumerate(made):
        row = expected[len(prompt) + i - 1]
        assert abs(float(row[token]) - logprob) < TIE
        assert not greedy or float(row.max() - row[token]) < TIE
