"""The decoder against transformers in float32, for each family and each way of cutting a sequence into steps."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from model_configs import CONFIGS, llama
from model_parity import PagedRun, files_at, load, random_tokens, reference_logprobs, save_random_model
from torch import Tensor
from transformers import PreTrainedModel


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, Path]:
    path = tmp_path_factory.mktemp("model")
    return save_random_model(CONFIGS[request.param], path), path


def assert_equal(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-4)


def test_whole_prompt(pair: tuple[PreTrainedModel, Path]) -> None:
    model, path = pair
    tokens = random_tokens(30, 97)
    assert_equal(PagedRun(load(files_at(path))).step({0: tokens})[0], reference_logprobs(model, tokens))


def test_chunks_then_token_by_token(pair: tuple[PreTrainedModel, Path]) -> None:
    model, path = pair
    tokens = random_tokens(40, 97)
    run = PagedRun(load(files_at(path)))
    cuts = [0, 7, 8, 21, *range(22, 41)]
    steps = [run.step({0: tokens[first:last]})[0] for first, last in pairwise(cuts)]
    assert_equal(torch.cat(steps), reference_logprobs(model, tokens))


def test_mixed_batches(pair: tuple[PreTrainedModel, Path]) -> None:
    """A row that decodes, one in mid-prompt and one that begins share each step, and do not disturb each other."""
    model, path = pair
    tokens = {row: random_tokens(30, 97, seed=row) for row in range(3)}
    run = PagedRun(load(files_at(path)), rows=3)
    plan = [{0: 20}, {0: 1, 2: 11}, {2: 5, 0: 1, 1: 30}, {0: 1, 2: 1}]
    seen: dict[int, list[Tensor]] = {row: [] for row in tokens}
    done = dict.fromkeys(tokens, 0)
    for lengths in plan:
        for row, logprobs in run.step({r: tokens[r][done[r] : done[r] + n] for r, n in lengths.items()}).items():
            seen[row].append(logprobs)
            done[row] += lengths[row]
    for row, parts in seen.items():
        assert_equal(torch.cat(parts), reference_logprobs(model, tokens[row][: done[row]]))


def test_dynamic_rope_beyond_the_context(tmp_path: Path) -> None:
    """Decoding past the trained context, transformers stretches the rotation token by token, and so do we."""
    model = save_random_model(llama({"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=24), tmp_path)
    tokens = random_tokens(40, 97)
    run, past = PagedRun(load(files_at(tmp_path))), None
    for first, last in [(0, 20), *((p, p + 1) for p in range(20, 40))]:
        with torch.inference_mode():
            output = model(torch.tensor([tokens[first:last]]), past_key_values=past, use_cache=True)
        past = output.past_key_values
        assert_equal(run.step({0: tokens[first:last]})[0], output.logits[0].log_softmax(-1))
