"""Bad words as token sequences, by vLLM's rule."""

from collections.abc import Sequence

from headrace.core.errors import HeadraceError
from headrace.text.tokenizer import Tokenizer


def bad_words_token_ids(tokenizer: Tokenizer, bad_words: Sequence[str]) -> list[list[int]]:
    """The token sequences that must not be made: each word as it begins a text and, where that is another token of
    the same length, as it follows a space.
    """
    return [token_ids for word in bad_words for token_ids in _spellings(tokenizer, word)]


def _spellings(tokenizer: Tokenizer, word: str) -> list[list[int]]:
    bare = word.lstrip()
    if not bare:
        raise HeadraceError(
            f"bad_words holds {word!r}",
            rule="A bad word must have at least one character that is not a space",
            fix="Remove it; logit_bias can forbid single tokens",
            param="bad_words",
        )
    first, spaced = tokenizer.encode_batch([bare, f" {bare}"], add_special_tokens=False)
    differs = len(first) == len(spaced) and first[0] != spaced[0]
    return [first, spaced] if differs else [first]
