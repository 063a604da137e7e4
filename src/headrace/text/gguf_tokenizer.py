"""A tokenizer from a GGUF file's metadata, where there is no tokenizer.json.

Two kinds of vocabulary: `gpt2` is byte-level BPE with its merges, and `tokenizer.ggml.pre` names how texts are split
before them; `llama` is SentencePiece BPE, whose merges are recovered from the scores of the tokens.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and, for defaults, llama.cpp's vocabulary loader.
"""

from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing

from headrace.core.errors import HeadraceError
from headrace.text.gguf_pre import Splitting, splitting
from headrace.text.gguf_vocabulary import GgufVocabulary, TokenType, read_vocabulary
from headrace.text.parts import DEFAULT_TEMPLATE, TokenizerParts

_SPACE = "\u2581"


def load_gguf(path: Path) -> TokenizerParts:
    """The tokenizer that the GGUF file at `path` describes. Raises `HeadraceError` if it is not one that we serve."""
    vocabulary = read_vocabulary(path)
    if vocabulary.kind == "gpt2":
        split = splitting(vocabulary.pre)
        backend, add_bos = _byte_level(vocabulary, split), split.add_bos
    else:
        backend, add_bos = _sentencepiece(vocabulary), True
    _add_tokens(backend, vocabulary)
    _frame(backend, vocabulary, add_bos if vocabulary.add_bos is None else vocabulary.add_bos)
    template = vocabulary.chat_template
    return TokenizerParts(backend, vocabulary.special_tokens, {DEFAULT_TEMPLATE: template} if template else {})


def _byte_level(vocabulary: GgufVocabulary, split: Splitting) -> tokenizers.Tokenizer:
    backend = _bpe(vocabulary, vocabulary.merges, ignore_merges=split.ignore_merges)
    backend.pre_tokenizer = split.pre_tokenizer()
    if split.nfc:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(vocabulary: GgufVocabulary) -> tokenizers.Tokenizer:
    unknown = vocabulary.special_tokens.get("unk_token")
    backend = _bpe(vocabulary, _merges_from_scores(vocabulary), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    spaces = normalizers.Replace(" ", _SPACE)
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.add_space_prefix:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        backend.normalizer = spaces
    backend.decoder = decoders.Sequence(steps)
    return backend


def _bpe(
    vocabulary: GgufVocabulary,
    merges: list[tuple[str, str]],
    *,
    unk_token: str | None = None,
    fuse_unk: bool = False,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> tokenizers.Tokenizer:
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    try:
        model = models.BPE(
            vocab=ids,
            merges=merges,
            unk_token=unk_token,
            fuse_unk=fuse_unk,
            byte_fallback=byte_fallback,
            ignore_merges=ignore_merges,
        )
    except Exception as error:  # the library raises nothing narrower
        raise HeadraceError(
            f"The GGUF file's tokenizer is broken: {error}",
            rule="Its merges must join tokens of its vocabulary",
            fix="Download it again, or pass tokenizer=DIRECTORY with the model's tokenizer.json",
            param="tokenizer",
        ) from error
    return tokenizers.Tokenizer(model)


def _merges_from_scores(vocabulary: GgufVocabulary) -> list[tuple[str, str]]:
    """Every way to make a normal token of two others, best score first: SentencePiece merges by the result's score."""
    rows = zip(vocabulary.tokens, vocabulary.scores, vocabulary.types, strict=True)
    normal = {token: score for token, score, kind in rows if kind == TokenType.NORMAL}
    ranked = sorted(normal, key=normal.__getitem__, reverse=True)
    return [
        (token[:cut], token[cut:])
        for token in ranked
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in normal and token[cut:] in normal
    ]


def _add_tokens(backend: tokenizers.Tokenizer, vocabulary: GgufVocabulary) -> None:
    """Control tokens are special; user-defined ones are matched whole too, but stay in decoded text."""
    rows = list(zip(vocabulary.tokens, vocabulary.types, strict=True))
    control = [token for token, kind in rows if kind in (TokenType.CONTROL, TokenType.UNKNOWN)]
    special = dict.fromkeys([*control, *vocabulary.special_tokens.values()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    plain = [token for token, kind in rows if kind == TokenType.USER_DEFINED and token not in special]
    backend.add_tokens([AddedToken(token, normalized=False) for token in plain])


def _frame(backend: tokenizers.Tokenizer, vocabulary: GgufVocabulary, add_bos: bool) -> None:
    """Put BOS in front of every encoded text and EOS behind it, as the file says."""
    named = vocabulary.special_tokens
    before = [named["bos_token"]] if add_bos and "bos_token" in named else []
    after = [named["eos_token"]] if vocabulary.add_eos and "eos_token" in named else []
    backend.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, "$B:1"],
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys([*before, *after])],
    )
