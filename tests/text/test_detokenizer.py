"""Pieces of text, joined, are what decoding everything at once gives - for any ids and any text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from headrace.text.detokenizer import IncrementalDetokenizer
from headrace.text.parts import TokenizerParts
from headrace.text.tokenizer import Tokenizer

KINDS = ("byte_level", "sentencepiece")
HARD = ["🙂", "👩\u200d👩\u200d👧", "日本", "e\u0301", "\u0301", " ", "  ", "\n", "Paris", "▁", "�"]
TEXTS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(HARD)).map("".join))


@pytest.fixture(scope="session", params=KINDS)
def tokenizer(request):
    return request.getfixturevalue(request.param)


def pieces(tokenizer, ids, **options):
    detokenizer = IncrementalDetokenizer(tokenizer, **options)
    return [*(detokenizer.add(token_id) for token_id in ids), detokenizer.flush()]


@given(data=st.data(), skip=st.booleans())
@settings(max_examples=300, deadline=None)
def test_random_ids_join_to_what_decode_gives(tokenizer, data, skip):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 5), max_size=30))
    assert "".join(pieces(tokenizer, ids, skip_special_tokens=skip)) == tokenizer.decode(ids, skip)


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    same = text if tokenizer.is_byte_level else text.replace("▁", " ")  # SentencePiece cannot tell the two apart
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids) == same


@given(text=TEXTS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_sequence_that_continues_a_prompt_joins_up_with_it(tokenizer, text, data):
    ids = tokenizer.encode("The " + text, add_special_tokens=False)
    cut = data.draw(st.integers(1, len(ids)))
    all_bytes = [tokenizer.token_bytes(token_id) for token_id in ids]
    told = b"".join(all_bytes[:cut]).decode(errors="ignore")  # the prompt's whole characters
    tail = "".join(pieces(tokenizer, ids[cut:], prompt_tail=ids[:cut][-8:]))
    assert told + tail == b"".join(all_bytes).decode()


def test_a_character_comes_out_with_its_last_byte(byte_level):
    ids = byte_level.encode("𓀀")
    assert len(ids) == 4
    assert pieces(byte_level, ids) == ["", "", "", "𓀀", ""]


def test_an_incomplete_character_can_be_seen_and_ends_as_a_replacement(byte_level):
    detokenizer = IncrementalDetokenizer(byte_level)
    ids = byte_level.encode("𓀀")[:2]
    assert [detokenizer.add(token_id) for token_id in ids] == ["", ""]
    assert detokenizer.pending_bytes == "𓀀".encode()[:2]
    assert detokenizer.flush() == "�" == byte_level.decode(ids)
    assert detokenizer.pending_bytes == b""


def test_a_character_that_began_in_the_prompt_is_completed(tokenizer):
    ids = tokenizer.encode("a𓀀b", add_special_tokens=False)
    middle = len(ids) - 3
    assert "".join(pieces(tokenizer, ids[middle:], prompt_tail=ids[:middle])) == "𓀀b"


def test_a_run_of_fallback_bytes_is_seen_while_it_is_held(sentencepiece):
    detokenizer = IncrementalDetokenizer(sentencepiece)
    run = [sentencepiece.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "é".encode()]
    assert [detokenizer.add(token_id) for token_id in run] == ["", ""]
    assert detokenizer.pending_bytes == "é".encode()
    assert detokenizer.flush() == "é"


def test_the_first_word_after_a_prompt_keeps_its_space(sentencepiece):
    prompt, answer = sentencepiece.encode("The river"), sentencepiece.encode("is", add_special_tokens=False)
    assert sentencepiece.decode(answer) == "is"
    assert "".join(pieces(sentencepiece, answer, prompt_tail=prompt)) == " is"


def test_a_prompt_that_ends_in_bytes_is_not_told_again(sentencepiece):
    prompt, answer = sentencepiece.encode("The\n"), sentencepiece.encode("is", add_special_tokens=False)
    assert "".join(pieces(sentencepiece, answer, prompt_tail=prompt)) == " is"


def test_special_tokens_are_left_out_unless_asked_for(byte_level):
    ids = byte_level.encode("<|im_start|>Hello<think><|im_end|>")
    assert "".join(pieces(byte_level, ids)) == "Hello<think>"
    assert "".join(pieces(byte_level, ids, skip_special_tokens=False)) == "<|im_start|>Hello<think><|im_end|>"


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.WordPiece(cleanup=False),
        decoders.BPEDecoder(),
        decoders.Metaspace(),
        decoders.Metaspace("▁", "never"),
        None,
    ],
    ids=["wordpiece", "suffix", "metaspace", "metaspace-never", "none"],
)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_other_decoders_join_up_too(decoder, data):
    words = ["a", "##b", "c</w>", "▁d", "▁", "▁▁e", "f"]
    backend = Backend(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="a"))
    if decoder is not None:
        backend.decoder = decoder
    tokenizer = Tokenizer(TokenizerParts(backend))
    ids = data.draw(st.lists(st.integers(0, len(words)), max_size=12)) * data.draw(st.sampled_from([1, 1, 9]))
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)
