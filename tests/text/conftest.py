"""Small tokenizers for the tests of this room."""

import pytest
from small_tokenizers import CHATML, byte_level_backend, save, sentencepiece_backend

from headrace.text.tokenizer import open_tokenizer


@pytest.fixture(scope="session")
def byte_level_dir(tmp_path_factory):
    return save(
        byte_level_backend(),
        tmp_path_factory.mktemp("byte_level"),
        bos_token="<|im_start|>",
        eos_token={"content": "<|im_end|>", "__type": "AddedToken"},
        chat_template=CHATML,
        tokenizer_class="PreTrainedTokenizerFast",
    )


@pytest.fixture(scope="session")
def sentencepiece_dir(tmp_path_factory):
    return save(
        sentencepiece_backend(),
        tmp_path_factory.mktemp("sentencepiece"),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        add_bos_token=True,
        tokenizer_class="PreTrainedTokenizerFast",
    )


@pytest.fixture(scope="session")
def byte_level(byte_level_dir):
    return open_tokenizer(byte_level_dir)


@pytest.fixture(scope="session")
def sentencepiece(sentencepiece_dir):
    return open_tokenizer(sentencepiece_dir)
