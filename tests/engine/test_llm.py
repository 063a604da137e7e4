"""`LLM` as its users meet it, on the embedded model."""

from pathlib import Path

import pytest

from headrace import LLM, BeamSearchParams, HeadraceError, SamplingParams
from headrace.engine.beam import BeamSearch

GREEDY = SamplingParams(temperature=0, max_tokens=12)
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def small(path: Path, **kwargs: object) -> LLM:
    return LLM(str(path), max_model_len=256, max_num_seqs=8, kv_cache_memory_bytes=64 * 2**20, **kwargs)


def test_generate_takes_prompts_in_every_form(llm: LLM) -> None:
    text = "The capital of France is"
    ids = llm.get_tokenizer().encode(text)
    forms = [text, ids, {"prompt": text}, {"prompt_token_ids": ids}]
    outputs = llm.generate(forms, GREEDY, use_tqdm=False)
    assert len({output.outputs[0].text for output in outputs}) == 1
    assert [output.prompt for output in outputs] == [text, None, text, None]
    assert all(output.prompt_token_ids == ids and output.finished for output in outputs)
    assert llm.generate(text, GREEDY, use_tqdm=False)[0].outputs == outputs[0].outputs
    assert llm.generate(ids, GREEDY, use_tqdm=False)[0].outputs == outputs[0].outputs


def test_each_prompt_may_have_its_own_parameters(llm: LLM) -> None:
    params = [SamplingParams(temperature=0, max_tokens=n) for n in (1, 5, 9)]
    outputs = llm.generate(["One", "Two", "Three"], params, use_tqdm=False)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 5, 9]
    with pytest.raises(HeadraceError, match="2 entries for 3 prompts"):
        llm.generate(["One", "Two", "Three"], params[:2], use_tqdm=False)


def test_chat_answers(llm: LLM) -> None:
    [output] = llm.chat(MESSAGES, SamplingParams(temperature=0, max_tokens=30), use_tqdm=False)
    assert "Paris" in output.outputs[0].text
    assert output.outputs[0].finish_reason == "stop"
    assert len(llm.chat([MESSAGES, MESSAGES], GREEDY, use_tqdm=False)) == 2


def test_stop_strings_end_the_text_and_free_the_sequence(llm: LLM) -> None:
    [whole] = llm.generate("1, 2, 3,", SamplingParams(temperature=0, max_tokens=30), use_tqdm=False)
    assert "6" in whole.outputs[0].text
    stopped = SamplingParams(temperature=0, max_tokens=30, stop=["6"])
    [output] = llm.generate("1, 2, 3,", stopped, use_tqdm=False)
    answer = output.outputs[0]
    assert answer.text == whole.outputs[0].text.split("6")[0]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", "6")
    assert llm.get_metrics().num_free_blocks == llm.get_metrics().num_blocks


def test_n_sequences_and_their_seeds(llm: LLM) -> None:
    params = SamplingParams(n=4, seed=5, max_tokens=12, temperature=1.0)
    [first] = llm.generate("Once upon a time", params, use_tqdm=False)
    [again] = llm.generate("Once upon a time", params, use_tqdm=False)
    texts = [answer.text for answer in first.outputs]
    assert len(set(texts)) == 4 and [answer.text for answer in again.outputs] == texts


def test_bad_words_never_appear(llm: LLM) -> None:
    [plain] = llm.chat(MESSAGES, GREEDY, use_tqdm=False)
    params = SamplingParams(temperature=0, max_tokens=12, bad_words=["Paris"])
    [output] = llm.chat(MESSAGES, params, use_tqdm=False)
    assert "Paris" in plain.outputs[0].text and "Paris" not in output.outputs[0].text


def exhaustive_beams(llm: LLM, prompt: list[int], width: int, length: int) -> list[tuple[list[int], float]]:
    """Beam search by its definition, each step by whole prompts."""
    beams = [(prompt, 0.0)]
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=2 * width)
    for _ in range(length):
        prompts = [{"prompt_token_ids": tokens} for tokens, _ in beams]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        grown = [
            ([*tokens, token], score + item.logprob)
            for (tokens, score), output in zip(beams, outputs, strict=True)
            for token, item in output.outputs[0].logprobs[0].items()
        ]
        beams = sorted(grown, key=lambda beam: beam[1], reverse=True)[:width]
    return beams


def test_beam_search_finds_what_its_definition_finds(llm: LLM) -> None:
    prompt = llm.get_tokenizer().encode("The best way to learn is")
    params = BeamSearchParams(beam_width=3, max_tokens=8, ignore_eos=True)
    outputs = llm.beam_search([{"prompt_token_ids": prompt}] * 2, params)
    expected = exhaustive_beams(llm, prompt, 3, 8)
    for output in outputs:
        assert [sequence.tokens for sequence in output.sequences] == [tokens for tokens, _ in expected]
        for sequence, (_, score) in zip(output.sequences, expected, strict=True):
            assert sequence.cum_logprob == pytest.approx(score, abs=1e-3)
    assert llm.get_metrics().num_free_blocks == llm.get_metrics().num_blocks


def test_beams_hold_a_long_prompt_once(llm: LLM) -> None:
    """Width 4 over 2,000 tokens takes under 1.1 times the blocks of one sequence."""
    engine = llm._open.engine
    prompt = [7] * 2000
    search = BeamSearch(engine, prompt, BeamSearchParams(beam_width=4, max_tokens=8, ignore_eos=True), (), iter_uid())
    most = 0
    try:
        for _ in range(3):
            wanted, found = set(search.launch()), {}
            while wanted - found.keys():
                output = engine.step()
                most = max(most, engine.stats().num_blocks - engine.stats().num_free_blocks)
                if output.logprobs:
                    found |= {row[0]: entry for row, entry in zip(output.rows(), output.logprobs, strict=True)}
            search.advance(found)
    finally:
        search.close()
    assert most < 1.1 * -(-2000 // 32)
    assert engine.stats().num_free_blocks == engine.stats().num_blocks


def iter_uid() -> object:
    uids = iter(range(10**9, 10**9 + 1000))
    return lambda: next(uids)


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([1, -1], GREEDY, "token id -1"),
        ([1, "a"], GREEDY, "token id 'a'"),
        ({"prompt": "x", "multi_modal_data": 1}, GREEDY, "no other key"),
        ("Hi", {"temperature": 0}, "sampling_params is .*SamplingParams"),
        ("", GREEDY, "The prompt is empty"),
        ([1, 2, 10**6], GREEDY, "token id 1000000"),
        ([1] * 3000, GREEDY, "The prompt has 3000 tokens.*2048.*or raise max_model_len"),
        ("Hi", SamplingParams(max_tokens=5000), "max_tokens is 5000.*2048.*or fewer"),
        ("Hi", SamplingParams(logprobs=50), "logprobs is 50.*At most 20.*max_logprobs=50"),
        ("Hi", SamplingParams(allowed_token_ids=[10**6]), "allowed_token_ids has the token id 1000000"),
        (3.5, GREEDY, "The prompt is '3.5'"),
    ],
)
def test_bad_requests_are_refused_before_any_work(
    llm: LLM, prompt: object, params: SamplingParams, message: str
) -> None:
    steps = llm.get_metrics().steps
    with pytest.raises(HeadraceError, match=message):
        llm.generate(["fine", prompt] if isinstance(prompt, str | float | dict) else [prompt], params, use_tqdm=False)
    assert llm.get_metrics().steps == steps


def test_what_is_not_built_is_refused_by_name(llm: LLM) -> None:
    for call in (llm.encode, llm.score, llm.embed):
        with pytest.raises(HeadraceError, match="not supported yet"):
            call("text")
    with pytest.raises(HeadraceError, match=r"LLM\.score"):
        llm.score("a", "b")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"quantization": "awq"}, "quantization='awq' is not supported yet.*int8"),
        ({"tensor_parallel_size": 4}, "tensor_parallel_size=4 .this machine shows \\d+ GPUs. is not supported yet"),
        ({"speculative_model": "small", "num_speculative_tokens": 5}, "speculative_config=.*'small'.*not supported"),
        ({"speculative_config": {"model": "small"}}, "not supported yet"),
        ({"max_modle_len": 100}, "Did you mean max_model_len"),
        ({"dtype": "int7"}, "dtype is 'int7'.*float32"),
        ({"max_model_len": 10**6}, "max_model_len is 1000000.*Use max_model_len=8192"),
        ({"kv_cache_memory_bytes": 2**50}, "kv_cache_memory_bytes.*GiB.*Use kv_cache_memory_bytes=\\d+"),
        ({"max_num_batched_tokens": 4}, "max_num_batched_tokens is 4.*Use max_num_batched_tokens=256"),
        ({"device": "cuda:9"}, "device is 'cuda:9'.*torch .* CUDA"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"revision": 5}, "revision is 5"),
        ({"enable_prefix_caching": "no"}, "enable_prefix_caching is 'no'"),
        ({"max_logprobs": -7}, "max_logprobs is -7"),
        ({"num_gpu_blocks_override": 10**9}, "num_gpu_blocks_override is 10*\\..*Use num_gpu_blocks_override=\\d"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size=2 is not supported yet"),
        ({"load_format": "safetensors"}, "load_format is 'safetensors'.*gguf"),
        ({"max_num_seqs": 10**7}, "Use max_num_seqs="),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization is 1.5"),
    ],
)
def test_bad_arguments_say_what_would_work(smollm2_gguf: Path, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(HeadraceError, match=message):
        LLM(str(smollm2_gguf), **kwargs)


def test_snippet_arguments_work(smollm2_gguf: Path) -> None:
    with LLM(model=str(smollm2_gguf), max_model_len=128, gpu_memory_utilization=0.7, enforce_eager=True) as llm:
        params = SamplingParams(temperature=0.7, max_tokens=20, top_p=0.9)
        outputs = llm.generate(["Hello, my name is"], params)
        assert outputs[0].outputs[0].text


def test_two_engines_in_one_process(smollm2_gguf: Path) -> None:
    """Each answers as it does when it is alone."""
    alone = {}
    for mode in ("int4", "int8"):
        with small(smollm2_gguf, quantization=mode) as llm:
            alone[mode] = llm.chat(MESSAGES, GREEDY, use_tqdm=False)[0].outputs[0].token_ids
    with small(smollm2_gguf, quantization="int4") as one, small(smollm2_gguf, quantization="int8") as two:
        for llm, mode in ((one, "int4"), (two, "int8"), (one, "int4")):
            assert llm.chat(MESSAGES, GREEDY, use_tqdm=False)[0].outputs[0].token_ids == alone[mode]


def test_a_closed_llm_says_so(smollm2_gguf: Path) -> None:
    llm = small(smollm2_gguf)
    llm.close()
    llm.close()
    with pytest.raises(HeadraceError, match="closed"):
        llm.generate("Hi", GREEDY)


def test_an_interrupted_generate_leaves_a_usable_engine(smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a step, where nearly all time is spent; the same for beam search."""
    with small(smollm2_gguf) as llm:
        runner, steps = llm._open.engine._runner, iter(range(100))
        launch = runner.launch

        def interrupted(plan: object) -> object:
            launched = launch(plan)
            if next(steps) == 2:
                raise KeyboardInterrupt
            return launched

        for call in (
            lambda: llm.generate(["One", "Two", "Three"], GREEDY, use_tqdm=False),
            lambda: llm.beam_search("One", BeamSearchParams(beam_width=3, max_tokens=8)),
        ):
            steps = iter(range(100))
            monkeypatch.setattr(runner, "launch", interrupted)
            with pytest.raises(KeyboardInterrupt):
                call()
            monkeypatch.setattr(runner, "launch", launch)
            stats = llm.get_metrics()
            assert (stats.num_free_blocks, stats.num_running, stats.num_waiting) == (stats.num_blocks, 0, 0)
            assert len(call()) in (1, 3)


def test_nothing_left_to_sample_is_refused(llm: LLM) -> None:
    eos = llm.get_tokenizer().eos_token_id
    params = SamplingParams(max_tokens=3, min_tokens=2, allowed_token_ids=[eos])
    with pytest.raises(HeadraceError, match="each of them is forbidden"):
        llm.generate("Hi", params, use_tqdm=False)
    assert llm.generate("Hi", GREEDY, use_tqdm=False)[0].finished


def test_forks_are_no_cache_hits(llm: LLM) -> None:
    llm.reset_prefix_cache()
    params = SamplingParams(n=3, max_tokens=2, seed=1)
    [output] = llm.generate("A prompt that was never seen before, of some length.", params, use_tqdm=False)
    assert output.num_cached_tokens == 0
