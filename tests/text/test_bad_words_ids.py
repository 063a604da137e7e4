"""Bad words as token sequences."""

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from headrace.core.errors import HeadraceError
from headrace.text.bad_words import bad_words_token_ids
from headrace.text.parts import TokenizerParts
from headrace.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    """Tokens for a, b, ab, and for a alone behind a space."""
    spelled = ["a", "b", "\u0120", "ab", "\u0120a"]
    backend = Backend(BPE({token: index for index, token in enumerate(spelled)}, [("a", "b"), ("\u0120", "a")]))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return Tokenizer(TokenizerParts(backend))


def test_a_word_is_forbidden_at_the_start_and_after_a_space(tokenizer):
    assert bad_words_token_ids(tokenizer, ["a", "b"]) == [[0], [4], [1]]


def test_spaces_before_the_word_do_not_matter(tokenizer):
    assert bad_words_token_ids(tokenizer, ["  a"]) == [[0], [4]]


def test_a_spaced_spelling_of_another_length_is_left_out(tokenizer):
    assert tokenizer.encode(" ab") == [2, 3]
    assert bad_words_token_ids(tokenizer, ["ab"]) == [[3]]


def test_a_word_of_spaces_is_refused(byte_level):
    with pytest.raises(HeadraceError, match="not a space"):
        bad_words_token_ids(byte_level, ["x", "  "])
