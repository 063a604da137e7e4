"""A Hugging Face directory gives what transformers' AutoTokenizer gives, and says what is wrong where it cannot."""

import json
import threading

import pytest
import transformers
from small_tokenizers import CORPUS, byte_level_backend, save, sentencepiece_backend
from tokenizers import processors

from headrace.core.errors import HeadraceError
from headrace.text.tokenizer import open_tokenizer

TEXTS = [
    *CORPUS[:6],
    "",
    "  two spaces \n\n",
    "<|im_start|>user\nhi<|im_end|>",
    "<s>[INST] hi [/INST]",
    "a<think>b</think>",
]

CONFIGS = {
    "plain": {},
    "add-bos": {"add_bos_token": True},
    "add-both": {"add_bos_token": True, "add_eos_token": True},
    "add-none": {"add_bos_token": False},
    "no-bos-to-add": {"add_bos_token": True, "bos_token": None},
    "declared-tokens": {
        "added_tokens_decoder": {
            "419": {"content": "<think>", "special": False, "normalized": False},
            "900": {"content": "<new>", "special": False, "normalized": False, "lstrip": True},
        },
        "additional_special_tokens": ["<extra>", "<think>"],
    },
    "named-token": {"eos_token": "<think>", "pad_token": {"__type": "AddedToken", "content": "<pad>", "lstrip": False}},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("framed", [False, True], ids=["bare", "framed"])
@pytest.mark.parametrize("kind", [byte_level_backend, sentencepiece_backend], ids=["bytes", "pieces"])
def test_equals_transformers(tmp_path, kind, framed, config):
    backend = kind()
    bos, eos = ("<|im_start|>", "<|im_end|>") if kind is byte_level_backend else ("<s>", "</s>")
    if framed:
        backend.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], special_tokens=[(bos, backend.token_to_id(bos))]
        )
    full = {"bos_token": bos, "eos_token": eos, "tokenizer_class": "PreTrainedTokenizerFast", **config}
    save(backend, tmp_path, **full)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), open_tokenizer(tmp_path)
    for text in [*TEXTS, "x <new> y<extra>"]:
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special)
            assert ours.decode(ids, special) == theirs.decode(ids, skip_special_tokens=special)
    assert len(ours) == ours.vocab_size == len(theirs)
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)


def test_ids_and_tokens(byte_level):
    assert byte_level.convert_tokens_to_ids("<|im_end|>") == byte_level.eos_token_id == 2
    assert byte_level.convert_tokens_to_ids(["<|im_start|>", "nothing"]) == [1, None]
    assert byte_level.convert_ids_to_tokens([0, 10_000]) == ["<|endoftext|>", None]
    assert byte_level.all_special_ids == [0, 1, 2]
    assert byte_level.eos_token == "<|im_end|>"


def test_an_unknown_token_has_the_id_of_the_unknown_token(sentencepiece):
    assert sentencepiece.convert_tokens_to_ids("nothing") == 0


def test_token_text_shows_the_space_and_half_characters(byte_level, sentencepiece):
    for tokenizer in (byte_level, sentencepiece):
        ids = tokenizer.encode(" Paris is", add_special_tokens=False)
        texts = [tokenizer.token_text(token_id) for token_id in ids]
        assert texts[0].startswith(" ")
        assert "".join(texts).lstrip() == "Paris is"
        assert tokenizer.token_bytes(10**6) == b""
        assert tokenizer.token_text(tokenizer.eos_token_id) == tokenizer.eos_token
    half = byte_level.encode("𓀀")[0]
    assert byte_level.token_bytes(half) == "𓀀".encode()[:1]
    assert byte_level.token_text(half) == "�"
    assert sentencepiece.token_bytes(sentencepiece.convert_tokens_to_ids("<0x0A>")) == b"\n"


def test_every_text_of_a_batch_is_encoded(byte_level):
    assert byte_level.encode_batch(TEXTS) == [byte_level.encode(text) for text in TEXTS]


def test_other_threads_run_while_a_long_text_is_encoded(byte_level):
    counted, done = 0, threading.Event()
    worker = threading.Thread(target=lambda: (byte_level.encode("Hello world " * 60_000), done.set()))
    worker.start()
    while not done.wait(0.001):
        counted += 1
    worker.join()
    assert counted > 5


@pytest.mark.parametrize("text", ["half \ud83d", b"bytes", 3, ("a", "b"), None])
def test_what_is_not_text_is_refused(byte_level, text):
    with pytest.raises(HeadraceError, match="string of valid Unicode"):
        byte_level.encode(text)


@pytest.mark.parametrize("token_id", [-1, 2**32, "1", 1.5])
def test_what_is_not_a_token_id_is_refused(byte_level, token_id):
    with pytest.raises(HeadraceError, match="Token ids are integers"):
        byte_level.decode([token_id])


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no tokenizer.*tokenizer="),
        ({"tokenizer.model": "x"}, "only tokenizer.model.*save_pretrained"),
        ({"tokenizer.json": "{}"}, "tokenizer.json cannot be read"),
        ({"tokenizer.json": None, "tokenizer_config.json": "{"}, "tokenizer_config.json is not JSON"),
        ({"tokenizer.json": None, "tokenizer_config.json": "[]"}, "tokenizer_config.json holds a list"),
    ],
)
def test_a_directory_without_a_sound_tokenizer_says_what_to_do(tmp_path, byte_level_dir, files, said):
    for name, content in files.items():
        (tmp_path / name).write_text((byte_level_dir / name).read_text() if content is None else content)
    with pytest.raises(HeadraceError, match=said):
        open_tokenizer(tmp_path)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(HeadraceError, match=r"no file or directory .*nowhere"):
        open_tokenizer(tmp_path / "nowhere")


def test_chat_templates_are_found_wherever_they_are(tmp_path, byte_level_dir):
    config = {"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]}
    for path in byte_level_dir.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    chat = [{"role": "user", "content": "hi"}]
    tokenizer = open_tokenizer(tmp_path)
    assert tokenizer.apply_chat_template(chat) == tokenizer.chat_template == "D"
    assert tokenizer.apply_chat_template(chat, tools=[{"type": "function"}]) == "T"
    assert tokenizer.apply_chat_template(chat, chat_template="tool_use") == "T"
    (tmp_path / "chat_template.jinja").write_text("F")
    assert open_tokenizer(tmp_path).apply_chat_template(chat) == "F"
    assert open_tokenizer(tmp_path, chat_template="{{ 'G' }}").apply_chat_template(chat) == "G"
    (tmp_path / "mine.jinja").write_text("M")
    assert open_tokenizer(tmp_path, chat_template=str(tmp_path / "mine.jinja")).apply_chat_template(chat) == "M"
    with pytest.raises(HeadraceError, match=r"gone\.jinja.*cannot be read"):
        open_tokenizer(tmp_path, chat_template=str(tmp_path / "gone.jinja"))
