"""A GGUF file's metadata gives the tokenizer that it was made from."""

import json

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import CHATML, CORPUS, sentencepiece_backend
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from headrace.core.errors import HeadraceError
from headrace.text.tokenizer import open_tokenizer

TEXTS = [
    *CORPUS[:6],
    "",
    "  two  spaces\n\n \n",
    "I'LL you're 12345 1\uff123",
    "<|im_start|>x<|im_end|>",
    "½ e\u0301\u200d!?",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def split_by(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
PRE = {
    "gpt-2": GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "llama-bpe": split_by(LLAMA3),
    "qwen2": split_by(QWEN2),
}


def trained(pre):
    """A tokenizer as the model's own tokenizer.json would have it, with merges that cross where each `pre` splits."""
    backend = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    backend.pre_tokenizer, backend.decoder = GPT2, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|im_start|>", "<|im_end|>"]
    backend.train_from_iterator(
        [*CORPUS, *["12345 12345 you're I'LL !?\n\n"] * 20],
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    backend.normalizer = normalizers.NFC() if pre == "qwen2" else None
    backend.pre_tokenizer = PRE[pre]
    return backend


def write_gguf(path, backend, kind, pre=None, **keys):
    """What llama.cpp's converter writes for `backend`."""
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(backend.get_vocab(), key=backend.get_vocab().__getitem__)
    special = {token.content for token in backend.get_added_tokens_decoder().values()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    if kind == "llama":
        writer.add_token_scores([-float(index) for index in range(len(tokens))])
    else:
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        writer.add_tokenizer_pre(pre)
    writer.add_token_types([3 if token in special else 6 if token.startswith("<0x") else 1 for token in tokens])
    for key, value in keys.items():
        (writer.add_bool if isinstance(value, bool) else writer.add_uint32)(f"tokenizer.ggml.{key}", value)
    writer.add_chat_template(CHATML)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("pre", PRE)
def test_byte_level_vocabularies_split_as_their_models_do(tmp_path, pre):
    backend = trained(pre)
    tokenizer = open_tokenizer(write_gguf(tmp_path / "m.gguf", backend, "gpt2", pre, bos_token_id=0, eos_token_id=1))
    for text in TEXTS:
        ids = backend.encode(text).ids
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.decode(ids) == backend.decode(ids)
        assert tokenizer.encode(text) == ([0, *ids] if pre == "llama-bpe" else ids)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.vocab_size) == ("<|im_start|>", "<|im_end|>", 400)
    assert tokenizer.all_special_ids == [0, 1]


@given(text=st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_sentencepiece_merges_come_back_from_the_scores(gguf_and_backend, text):
    tokenizer, backend = gguf_and_backend
    ids = backend.encode(text).ids
    assert tokenizer.encode(text) == [1, *ids]
    assert tokenizer.decode(ids) == backend.decode(ids)


@pytest.fixture(scope="module")
def gguf_and_backend(tmp_path_factory):
    backend = sentencepiece_backend()
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_gguf(path, backend, "llama", bos_token_id=1, eos_token_id=2, unknown_token_id=0)
    return open_tokenizer(path), backend


@pytest.mark.parametrize(("ranked", "pieces"), [(["bc", "ab"], ["a", "bc"]), (["ab", "bc"], ["ab", "c"])])
def test_the_better_score_is_merged_first(tmp_path, ranked, pieces):
    tokens = ["a", "b", "c", *ranked]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    tokenizer = open_tokenizer(write_gguf(tmp_path / "m.gguf", backend, "llama", add_space_prefix=False))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("abc")) == pieces


def test_flags_of_the_file_win(tmp_path):
    backend = sentencepiece_backend()
    keys = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    flags = {"add_bos_token": False, "add_eos_token": True, "add_space_prefix": False}
    tokenizer = open_tokenizer(write_gguf(tmp_path / "m.gguf", backend, "llama", **keys, **flags))
    ids = tokenizer.encode("Hello")
    assert ids[-1] == 2 and ids[0] != 1
    assert tokenizer.token_text(ids[0])[0] == "H"
    assert tokenizer.decode(tokenizer.encode(" Hello")) == " Hello"


def test_the_embedded_model(smollm2_gguf):
    tokenizer = open_tokenizer(smollm2_gguf)
    known = {
        "The capital of France is": [504, 3575, 282, 4649, 314],
        "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
        "Café déjà vu.": [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30],
    }
    for text, ids in known.items():
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
    chat = tokenizer.apply_chat_template([{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}])
    assert chat == "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(tokenizer.encode(chat), skip_special_tokens=False) == chat
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.vocab_size) == ("<|im_end|>", 2, 49_152)


def test_an_unknown_splitting_is_refused_by_name(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", trained("gpt-2"), "gpt2", "strange")
    with pytest.raises(HeadraceError, match=r"pre is 'strange'.*smollm.*tokenizer\.json"):
        open_tokenizer(path)


def test_a_kind_that_is_not_served_is_refused_by_name(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", trained("gpt-2"), "bert", "gpt-2")
    with pytest.raises(HeadraceError, match=r"'bert'.*gpt2 and llama"):
        open_tokenizer(path)


@pytest.mark.parametrize("keep", [0, 3, 20, 500, 5000])
def test_a_truncated_file_is_refused(tmp_path, keep):
    whole = write_gguf(tmp_path / "whole.gguf", trained("gpt-2"), "gpt2", "gpt-2").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:keep])
    with pytest.raises(HeadraceError, match=r"cut\.gguf.*Download"):
        open_tokenizer(cut)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_refused_or_read_but_never_crashes(tmp_path_factory, data):
    whole = bytearray(damaged_source(tmp_path_factory).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(whole)
    try:
        open_tokenizer(path)
    except HeadraceError as error:
        assert error.fix


def damaged_source(tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "sound.gguf"
    return path if path.exists() else write_gguf(path, trained("gpt-2"), "gpt2", "gpt-2", bos_token_id=0)
