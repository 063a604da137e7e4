"""`LLM` on a config.json alone: made-up weights, and no tokenizer."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import LLM, AsyncLLM, HeadraceError, SamplingParams

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "vocab_size": 200,
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": 7, "rms_norm_eps": 1e-5,
}  # fmt: skip
PROMPTS = [{"prompt_token_ids": [5, 6, 9]}, [8, 9]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds a config.json."""
    path = tmp_path_factory.mktemp("shape")
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def start(folder: Path, seed: int = 0) -> LLM:
    return LLM(str(folder), load_format="dummy", skip_tokenizer_init=True, seed=seed, dtype="bfloat16", device="cpu")


@pytest.fixture(scope="module")
def bare(folder: Path) -> Iterator[LLM]:
    """A model without weights or tokenizer."""
    with start(folder) as llm:
        yield llm


def tokens_of(llm: LLM) -> list[list[int]]:
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params, use_tqdm=False)]


def test_token_ids_in_and_out(bare: LLM) -> None:
    outputs = bare.generate(PROMPTS, SamplingParams(max_tokens=6, ignore_eos=True, detokenize=False), use_tqdm=False)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [6, 6]
    assert all(output.outputs[0].text == "" for output in outputs)


def test_the_seed_decides_what_the_model_is(bare: LLM, folder: Path) -> None:
    with start(folder) as again, start(folder, seed=1) as other:
        assert tokens_of(again) == tokens_of(bare) != tokens_of(other)


@pytest.mark.parametrize(
    ("prompt", "params"),
    [
        ("text", SamplingParams()),
        ([5], SamplingParams(stop="\n")),
        ([5], SamplingParams(bad_words=["no"])),
    ],
    ids=["text", "stop string", "bad words"],
)
def test_what_needs_a_tokenizer_is_refused(bare: LLM, prompt: str | list[int], params: SamplingParams) -> None:
    with pytest.raises(HeadraceError, match=r"no tokenizer.*prompt_token_ids"):
        bare.generate([prompt], params, use_tqdm=False)
    with pytest.raises(HeadraceError, match="no tokenizer"):
        bare.get_tokenizer()


def test_async(folder: Path) -> None:
    async def one() -> int:
        async with AsyncLLM(str(folder), load_format="dummy", skip_tokenizer_init=True, device="cpu") as llm:
            async for output in llm.generate({"prompt_token_ids": [5]}, SamplingParams(max_tokens=3), "r"):
                last = output
        return len(last.outputs[0].token_ids)

    assert 1 <= asyncio.run(one()) <= 3


def test_without_the_format_weights_are_missed(folder: Path) -> None:
    with pytest.raises(HeadraceError, match="has no weights"):
        LLM(str(folder))
