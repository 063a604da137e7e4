"""Bad words as token sequences, by vLLM's rule."""

from collections.abc import Sequence

from headrace.core.errors import HeadraceError
from headrace.text.tokenizer import Tokenizer


def bad_words_token_ids(tokenizer: Tokenizer, bad_words: Sequence[str]) -> list[list[int]]:
    """The token sequences that must not be made: each word as it begins a text and, where that is another token of
    the same length, as it follows a space.
    """
    spellings = [spelling for word in bad_words for spelling in _spellings(word)]
    encoded = iter(tokenizer.encode_batch(spellings, add_special_tokens=False))
    return [token_ids for bare, spaced in zip(encoded, encoded, strict=True) for token_ids in _different(bare, spaced)]


def _spellings(word: str) -> tuple[str, str]:
    bare = word.lstrip()
    if not bare:
        raise HeadraceError(
            f"bad_words holds {word!r}",
            rule="A bad word must have at least one character that is not a space",
            fix="Remove it; logit_bias can forbid single tokens",
            param="bad_words",
        )
    return bare, f" {bare}"


def _different(bare: list[int], spaced: list[int]) -> list[list[int]]:
    return [bare, spaced] if len(bare) == len(spaced) and bare[0] != spaced[0] else [bare]
