"""What `headrace plan` says where what was asked cannot be had, or not by the flags that were given."""

import json
import re
from pathlib import Path

import pytest

SMALL, QWEN = "Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"


def test_as_many_may_run_as_are_asked_for(answer) -> None:
    found = answer(SMALL, "--gpu", "H100", "--concurrency", "500", "--max-model-len", "1024")
    assert found["enough"] and found["engine_arguments"]["max_num_seqs"] == 500
    assert found["plan"]["sequences"]["guaranteed"] == 500
    assert any("--max-num-seqs is 500 here" in sentence for sentence in found["advice"])


def test_no_more_are_at_once_than_may_run(run, answer) -> None:
    flags = (SMALL, "--gpu", "H100", "--max-num-seqs", "1", "--max-model-len", "1024")
    assert answer(*flags)["plan"]["sequences"] == {"guaranteed": 1, "expected": 1}
    assert re.search(r"the cache holds \d+; --max-num-seqs 1 may run", run(*flags)[1])
    assert answer(*flags, "--concurrency", "5")["engine_arguments"]["max_num_seqs"] == 5


@pytest.mark.parametrize("flags", [("--concurrency", "100000000"), ("--max-itl-ms", "1"), ("--max-ttft-ms", "0.001")])
def test_that_no_gpu_does_it_is_said(run, answer, flags: tuple[str, str]) -> None:
    found = answer(SMALL, *flags)
    assert not found["enough"] and found["advice"][0].startswith("No known GPU does all that was asked")
    printed = run(SMALL, *flags)[1]
    assert "but does less than was asked" in printed and "at 0 tokens" not in printed
    assert "not 1\n" not in printed or re.search(r"Predicted: 1\.\d+ ms", printed)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["deepseek-ai/DeepSeek-V3", "--gpu", "H100"], "--gpu MI300X --tensor-parallel-size 4 does it"),
        (["moonshotai/Kimi-K2-Instruct", "--quantization", "none"], "Leave --quantization out"),
        ([SMALL, "--gpu-memory-utilization", "0.0001"], "Use --gpu-memory-utilization 0.0"),
        ([SMALL, "--max-num-batched-tokens", "1000000000"], "Use --max-num-batched-tokens 4096"),
        ([SMALL, "--max-num-seqs", "100000000"], "Use --max-num-seqs 256"),
        ([QWEN, "--gpu", "L4", "--kv-cache-memory-bytes", "100G"], "Use --kv-cache-memory-bytes "),
        ([QWEN, "--gpu", "L4", "--kv-cache-memory-bytes", "5G"], "Use --kv-cache-memory-bytes "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_fit_has_a_cure(answer, arguments: list[str], cure: str) -> None:
    found = answer(*arguments)
    assert not found["plan"]["fits"]
    assert [sentence for sentence in found["advice"] if sentence.startswith(cure)], found["advice"]


@pytest.mark.parametrize("asked", ["100G", "5G"])
def test_the_cure_of_a_cache_that_is_too_large_fits(answer, asked: str) -> None:
    flags = (QWEN, "--gpu", "L4", "--kv-cache-memory-bytes")
    cure = next(found for each in answer(*flags, asked)["advice"] if (found := re.match(r"Use \S+ (\d+)$", each)))
    assert answer(*flags, cure[1])["plan"]["fits"]


def test_advice_names_its_gpus_and_what_it_still_misses(answer) -> None:
    large = answer("meta-llama/Llama-3.1-70B")["advice"]
    assert any(sentence.startswith("--kv-cache-dtype fp8 on 2 x H200: ") for sentence in large)
    crowded = answer(QWEN, "--gpu", "L4", "--concurrency", "50")["advice"]
    assert any(re.match(r"--quantization int8 on 1 x L4: .*, still not 50$", sentence) for sentence in crowded)


def test_the_number_of_gpus_is_kept_where_none_is_named(answer) -> None:
    found = answer(SMALL, "-tp", "2")
    assert {each["gpus"] for each in [found["plan"], *found["others"]]} == {2}
    refusal = found["engine_refusal"]
    assert refusal.startswith("--tensor-parallel-size 2;") and "machine" not in refusal and "_" not in refusal


@pytest.mark.parametrize("size", ["3", "16"])
def test_a_number_of_gpus_that_there_is_not_is_refused(run, size: str) -> None:
    status, _, complaint = run(SMALL, "-tp", size)
    assert status == 2 and f"--tensor-parallel-size is {size}" in complaint and "fix: Use" in complaint


def test_the_explanation_adds_up(answer, smollm2_gguf: Path) -> None:
    lines = {line["label"]: line for line in answer(SMALL, "--gpu", "L4", "--quantization", "int8")["plan"]["lines"]}
    assert "Unpacked weights" in lines["Fragmentation"]["formula"]
    context = lines["CUDA context"]
    assert context["formula"] == f"{context['bytes']:,} bytes for any model"
    on_cpu = answer(SMALL, "--device", "cpu")["plan"]["lines"][0]
    assert "the head that is tied to the table once more" in on_cpu["formula"]


CPU = (SMALL, "--device", "cpu", "--host-memory", "23G")


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        (["--kv-cache-dtype", "fp8"], "--kv-cache-dtype fp8 on a CPU"),
        (["--quantization", "awq"], "--quantization awq is not supported yet"),
        (["--quantization", "q4_k"], "--quantization is 'q4_k'"),
    ],
    ids=str,
)
def test_what_the_engine_refuses_on_a_cpu_is_said(run, answer, flags: list[str], refused: str) -> None:
    assert answer(*CPU, *flags)["engine_refusal"].startswith(refused)
    assert "This version's engine does not take that yet" in run(*CPU, *flags)[1]


@pytest.mark.parametrize("flags", [("-tp", "2"), ("--max-itl-ms", "1"), ("--max-ttft-ms", "100")], ids=str)
def test_what_is_of_gpus_only_is_refused_on_a_cpu(run, flags: tuple[str, str]) -> None:
    status, printed, complaint = run(*CPU, *flags)
    name = "--tensor-parallel-size" if flags[0] == "-tp" else flags[0]
    assert status == 2 and not printed and complaint.startswith(f"error: {name} is ")


def test_a_cpu_is_asked_for_many_at_once(answer) -> None:
    few = answer(*CPU, "--concurrency", "2", "--max-model-len", "20000")
    (sentence,) = few["lacking"]
    cure = re.fullmatch(r"1 at once at 20,000 tokens, not 2; --kv-cache-memory-bytes (\d+) holds them", sentence)
    assert cure
    enough = answer(*CPU, "--max-model-len", "20000", "--kv-cache-memory-bytes", cure[1])
    assert enough["plan"]["sequences"]["guaranteed"] == 2
    assert answer(*CPU, "--concurrency", "300", "--max-model-len", "64")["engine_arguments"]["max_num_seqs"] == 300


def test_a_cpu_whose_cache_is_capped_says_so(answer) -> None:
    found = answer(*CPU, "--max-model-len", "40960")
    assert not found["plan"]["fits"] and found["lacking"][0].startswith("The memory is enough: the KV cache takes 4.38")
    assert found["cure"].startswith("Use --kv-cache-memory-bytes ")


def test_heavier_weights_are_not_offered(answer, smollm2_gguf: Path) -> None:
    found = answer(str(smollm2_gguf), "--device", "cpu", "--host-memory", "8G")
    weights = found["plan"]["lines"][0]["bytes"]
    assert all(form["lines"][0]["bytes"] < weights for form in found["forms"].values())
    assert "int8" not in found["forms"]


def test_a_comparison_says_what_the_engine_refuses(run) -> None:
    flags = ("compare", SMALL, "deepseek-ai/DeepSeek-V3")
    printed = run(*flags)[1]
    assert "does not take that yet: deepseek-ai/DeepSeek-V3: models of type deepseek_v3" in printed
    plans = json.loads(run(*flags, "-tp", "2", "--json")[1])["plans"]
    assert [each["plan"]["gpus"] for each in plans] == [2, 2]
    assert plans[0]["engine_refusal"].startswith("--tensor-parallel-size 2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["./nodir"], "There is no file or directory './nodir'"),
        ([SMALL, "--chart", ""], "--chart is empty"),
        ([SMALL, "--concurrency", "0"], "error: --concurrency is 0"),
        ([SMALL, "--max-itl-ms", "0"], "error: --max-itl-ms is 0"),
        ([SMALL, "--max-num-batched-tokens", "1"], "--max-num-batched-tokens is 1 and --max-num-seqs is 256"),
        ([SMALL, "--max-model-len", "-5"], "--max-model-len is '-5'"),
    ],
    ids=str,
)
def test_errors_speak_of_flags(run, arguments: list[str], words: str) -> None:
    status, printed, complaint = run(*arguments)
    assert status == 2 and not printed and words in complaint and "max_num" not in complaint
