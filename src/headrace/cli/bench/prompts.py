"""What the load generator asks: prompts of chosen lengths, from random words or from a file of conversations.

A prompt is a text of common English words, each one token with its space in the usual vocabularies, so its length in
tokens is its number of words without a tokenizer of the model's at hand. What the server counted is in the report.
"""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.core.errors import HeadraceError

CHARACTERS_PER_TOKEN = 4
"""How long English text is taken to be, where it comes from a file and only the server has the tokenizer."""

MIN_TOKENS, MAX_PROMPT_TOKENS, MAX_TOTAL_TOKENS = 4, 1_024, 2_048
"""The conversations that vLLM's benchmark keeps of ShareGPT."""

PROMPT_MEDIAN, PROMPT_SIGMA = 151.0, 1.3
OUTPUT_MEDIAN, OUTPUT_SIGMA = 127.0, 1.0
"""Log-normal lengths like ShareGPT's. Kept within the bounds above, their means are 215 and 198 tokens: those of the
1,000 conversations of ShareGPT_V3_unfiltered_cleaned_split.json that vLLM's benchmark takes by default (it prints
215,196 tokens in and about 198,000 out). The widths (sigma) are this program's choice."""

_TEXT = """
about across again air almost along also among animal answer appear area ask back bear became become been began
behind below better big black board body both boy brought built but call can care case cause certain check children
class clear cold come complete contain cook copy could course create cry dark deep did direct does door draw dress
drop during ear earth east edge eight end enough evening ever example face family farm father feet field fill find
fire fish floor fly food for form four friend front game general girl glass good govern green group had hand hard
have hear heart heavy her high his hold horse hour how idea interest island keep king know language last laugh lay
learn left let level light line listen live look love machine main man map market mean men mile minute money more
most mountain much must nation near never next north nothing now object off oil once only order our over page part
past people person piece plain plane play port possible press produce pull question rain reach ready record remember
right road room rule said saw school sea see self serve several she short show simple sing size slow
"""
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class BenchPrompt:
    """A text to send, about how many tokens it has, and how many are to be generated."""

    text: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class RandomLengths:
    """Lengths in tokens, drawn evenly from (1 - `range_ratio`) to (1 + `range_ratio`) times the given ones.

    The first `prefix_len` words of all prompts are the same ones, in addition.
    """

    input_len: int
    output_len: int
    range_ratio: float = 0.0
    prefix_len: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.range_ratio < 1.0:
            raise HeadraceError(
                f"--random-range-ratio is {self.range_ratio:g}",
                rule="Lengths are drawn from (1 - ratio) to (1 + ratio) times these: it is in [0, 1)",
                fix="Use 0 for equal lengths, or for example 0.5",
                param="random_range_ratio",
            )


def random_prompts(source: random.Random, lengths: RandomLengths, count: int) -> list[BenchPrompt]:
    """Prompts of random words."""
    prefix = source.choices(_WORDS, k=lengths.prefix_len)

    def draw(around: int) -> int:
        spread = lengths.range_ratio
        return source.randint(max(1, math.floor(around * (1 - spread))), max(1, math.ceil(around * (1 + spread))))

    return [_prompt(source, draw(lengths.input_len), draw(lengths.output_len), prefix) for _ in range(count)]


def sharegpt_like_prompts(source: random.Random, count: int) -> list[BenchPrompt]:
    """Prompts of random words whose lengths, and those of the answers, are spread as ShareGPT's are."""
    lengths = _sharegpt_lengths(source)
    return [_prompt(source, *next(lengths)) for _ in range(count)]


def sharegpt_prompts(source: random.Random, path: Path, count: int, output_len: int | None) -> list[BenchPrompt]:
    """The beginnings of conversations in a ShareGPT JSON file, drawn at random, again from the start if they run out.

    Answers get the length that they have in the file, or `output_len`. Raises `HeadraceError` for another file.
    """
    found = [prompt for prompt in _conversations(path, output_len) if _is_kept(prompt)]
    if not found:
        raise HeadraceError(
            f"--dataset-path {path} has no conversation that fits",
            rule=f"Prompts have {MIN_TOKENS} to {MAX_PROMPT_TOKENS} tokens, with the answer up to {MAX_TOTAL_TOKENS}",
            fix="Use another file, or leave --dataset-path out for lengths like ShareGPT's",
            param="dataset_path",
        )
    source.shuffle(found)
    return [found[number % len(found)] for number in range(count)]


def _prompt(source: random.Random, words: int, output_tokens: int, prefix: list[str] | None = None) -> BenchPrompt:
    chosen = (prefix or []) + source.choices(_WORDS, k=words)
    return BenchPrompt(" ".join(chosen), len(chosen), output_tokens)


def _sharegpt_lengths(source: random.Random) -> Iterator[tuple[int, int]]:
    while True:
        prompt = round(source.lognormvariate(math.log(PROMPT_MEDIAN), PROMPT_SIGMA))
        output = round(source.lognormvariate(math.log(OUTPUT_MEDIAN), OUTPUT_SIGMA))
        if min(prompt, output) >= MIN_TOKENS and prompt <= MAX_PROMPT_TOKENS and prompt + output <= MAX_TOTAL_TOKENS:
            yield prompt, output


def _conversations(path: Path, output_len: int | None) -> Iterator[BenchPrompt]:
    try:
        content = json.loads(path.read_bytes())
        for conversation in content:
            turns = [str(turn["value"]) for turn in conversation.get("conversations", conversation.get("conversation"))]
            if len(turns) >= 2:
                yield BenchPrompt(turns[0], _estimate(turns[0]), output_len or _estimate(turns[1]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise HeadraceError(
            f"--dataset-path {path} cannot be read: {error}",
            rule="It is a ShareGPT file: a JSON list of objects with conversations, a list of objects with a value",
            fix="Check the path, or leave it out for lengths like ShareGPT's",
            param="dataset_path",
        ) from None


def _estimate(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def _is_kept(prompt: BenchPrompt) -> bool:
    return (
        MIN_TOKENS <= prompt.prompt_tokens <= MAX_PROMPT_TOKENS
        and prompt.output_tokens >= MIN_TOKENS
        and prompt.prompt_tokens + prompt.output_tokens <= MAX_TOTAL_TOKENS
    )
