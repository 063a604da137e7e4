"""`headrace plan compare`: the numbers of each plan, side by side at one context."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.planner.price_book import keep, shipped_prices

QWEN, LLAMA = "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B"


@pytest.fixture
def compared(run):
    """A comparison as JSON."""

    def answer_of(*arguments: str) -> dict:
        status, printed, _ = run("compare", *arguments, "--json")
        assert status == 0
        return json.loads(printed)

    return answer_of


def plan_alone(run, *arguments: str) -> dict:
    """The same question to `headrace plan`."""
    return json.loads(run(*arguments, "--json")[1])["plan"]


def test_two_models_have_the_numbers_that_each_has_alone(run, compared) -> None:
    flags = ("--gpu", "L40S", "--max-model-len", "16K", "--concurrency", "2")
    found = compared(QWEN, LLAMA, *flags)
    assert found["context"] == 16384
    assert [each["model"] for each in found["plans"]] == [QWEN, LLAMA]
    for each in found["plans"]:
        assert each["plan"] == plan_alone(run, each["model"], *flags)


def test_without_a_context_all_are_compared_at_the_shortest_that_fits(compared) -> None:
    found = compared(QWEN, "Qwen/Qwen3-0.6B", "--gpu", "L4")
    own = [each["plan"]["longest_context"] for each in found["plans"]]
    assert found["context"] == min(own) < max(own)
    assert {each["plan"]["context"] for each in found["plans"]} == {found["context"]}


def test_one_model_on_gpus_and_in_formats(compared) -> None:
    flags = ["--gpu", "L4", "--gpu", "H100", "--quantization", "none", "--quantization", "int8"]
    found = [each["plan"] for each in compared(QWEN, *flags)["plans"]]
    assert [(each["gpu"], each["weights"]) for each in found] == [
        ("L4", "bfloat16"),
        ("L4", "int8"),
        ("H100", "bfloat16"),
        ("H100", "int8"),
    ]
    assert found[0]["lines"][0]["bytes"] > 1.7 * found[1]["lines"][0]["bytes"]


def test_one_that_does_not_fit_has_no_speed_and_no_price(run, compared) -> None:
    flags = (QWEN, "meta-llama/Llama-3.1-70B", "--gpu", "L40S", "--max-model-len", "8K")
    fits, other = compared(*flags)["plans"]
    assert fits["plan"]["fits"] and fits["cheapest_offer"]["usd_per_hour"] > 0
    assert not other["plan"]["fits"] and other["cheapest_offer"] is None
    _, printed, _ = run("compare", *flags)
    rows = {line[:30].strip(): line[30:].split() for line in printed.splitlines() if line}
    assert rows["fits"] == ["yes", "no"]
    assert rows["$/hour"][1] == "-"


def test_an_old_price_is_warned_of(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    price = next(price for price in shipped_prices() if price.instance == "gpu-l40s")
    keep([replace(price, instance="cheap", usd_per_hour=0.01, as_of="2020-01-01")])
    _, printed, _ = run("compare", QWEN, LLAMA, "--gpu", "L40S")
    assert "warning: The price of Replicate cheap is of 2020-01-01" in printed


def test_none_that_fits_is_an_answer(run) -> None:
    status, printed, _ = run("compare", QWEN, "meta-llama/Llama-3.1-70B", "--gpu", "T4")
    assert status == 0 and "None of these fits" in printed


def test_the_table(run) -> None:
    status, printed, _ = run("compare", QWEN, LLAMA, "--gpu", "L40S")
    lines = printed.splitlines()
    assert status == 0
    assert lines[0].split() == ["Qwen3-8B", "Llama-3.1-8B"]
    assert max(map(len, lines)) <= 100 and not any(line.endswith(" ") for line in lines)
    assert "\x1b" not in printed
    ends = {len(line) for line in lines[: lines.index("")]}
    assert len(ends) == 1, "the numbers end in line"


def test_names_keep_their_organisation_where_it_tells_them_apart(run, tmp_path: Path) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
    config |= {"num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 2048}
    for folder in ("a", "b"):
        (tmp_path / folder / "tiny").mkdir(parents=True)
        (tmp_path / folder / "tiny" / "config.json").write_text(json.dumps(config))
    _, printed, _ = run("compare", *(str(tmp_path / folder / "tiny") for folder in ("a", "b")))
    assert printed.splitlines()[0].split() == [str(tmp_path / folder / "tiny") for folder in ("a", "b")]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([QWEN], "There is 1 plan to compare"),
        ([QWEN] * 9, "There are 9 plans to compare"),
        ([], "MODEL"),
        ([QWEN, "nobody"], "'nobody'"),
        ([QWEN, LLAMA, "--gpu", "GTX480"], "'GTX480'"),
        ([QWEN, LLAMA, "--quantization", "q9"], "'q9'"),
        ([QWEN, LLAMA, "--max-model-len", "64K"], "65536"),
        ([QWEN, LLAMA, "--concurrency", "0"], "concurrency is 0"),
    ],
    ids=str,
)
def test_bad_input(run, arguments: list[str], word: str) -> None:
    status, printed, complaint = run("compare", *arguments)
    assert status == 2 and word in complaint and printed == "" and "Traceback" not in complaint
