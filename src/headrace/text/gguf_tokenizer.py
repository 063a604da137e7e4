"""A tokenizer from a GGUF file's metadata, where there is no tokenizer.json.

Two kinds of vocabulary: `gpt2` is byte-level BPE with its merges, and `tokenizer.ggml.pre` names how texts are split
before them; `llama` is SentencePiece BPE, whose merges are recovered from the scores of the tokens.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and, for defaults, llama.cpp's vocabulary loader.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing

from headrace.core.errors import HeadraceError
from headrace.text.gguf_metadata import read_metadata
from headrace.text.gguf_pre import Splitting, splitting
from headrace.text.parts import DEFAULT_TEMPLATE, TokenizerParts

_NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_SPACE = "\u2581"


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`: what each token of a vocabulary is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def load_gguf(path: Path) -> TokenizerParts:
    """The tokenizer that the GGUF file at `path` describes. Raises `HeadraceError` if it is not one that we serve."""
    prefix = "tokenizer."
    metadata = {key.removeprefix(prefix): value for key, value in read_metadata(path, prefix).items()}
    kind, tokens = metadata.get("ggml.model"), metadata.get("ggml.tokens")
    if kind not in ("gpt2", "llama") or not tokens:
        raise HeadraceError(
            f"{path} has the tokenizer {kind!r} with {len(tokens or ())} tokens",
            rule="GGUF tokenizers of the kinds gpt2 and llama are read",
            fix="Pass tokenizer=DIRECTORY with the model's tokenizer.json",
            param="tokenizer",
        )
    split = splitting(metadata.get("ggml.pre") or "default") if kind == "gpt2" else None
    backend = _byte_level(metadata, split) if split else _sentencepiece(metadata)
    special = {name: tokens[metadata[key]] for name, key in _named_keys(metadata, len(tokens))}
    _add_tokens(backend, metadata, special)
    _frame(backend, metadata, special, add_bos=split.add_bos if split else True)
    template = metadata.get("chat_template")
    return TokenizerParts(backend, special, {DEFAULT_TEMPLATE: template} if template else {})


def _named_keys(metadata: Mapping[str, Any], vocab_size: int) -> list[tuple[str, str]]:
    keys = [(name, f"ggml.{short}_token_id") for name, short in _NAMED.items()]
    return [(name, key) for name, key in keys if 0 <= metadata.get(key, -1) < vocab_size]


def _frame(
    backend: tokenizers.Tokenizer, metadata: Mapping[str, Any], special: Mapping[str, str], *, add_bos: bool
) -> None:
    """Put BOS in front of every encoded text and EOS behind it, where the file or its kind says so."""
    bos = special.get("bos_token") if metadata.get("ggml.add_bos_token", add_bos) else None
    eos = special.get("eos_token") if metadata.get("ggml.add_eos_token", False) else None
    before, after = [bos] if bos else [], [eos] if eos else []
    backend.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, "$B:1"],
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys([*before, *after])],
    )


def _byte_level(metadata: Mapping[str, Any], split: Splitting) -> tokenizers.Tokenizer:
    model = _bpe(
        vocab=_vocabulary(metadata["ggml.tokens"]),
        merges=[_pair(merge) for merge in metadata.get("ggml.merges", [])],
        ignore_merges=split.ignore_merges,
    )
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = split.pre_tokenizer()
    if split.nfc:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _bpe(**arguments: Any) -> models.BPE:
    try:
        return models.BPE(**arguments)
    except Exception as error:  # the library raises nothing narrower
        raise HeadraceError(
            f"The GGUF file's tokenizer is broken: {error}",
            rule="Its merges must join tokens of its vocabulary",
            fix="Download it again, or pass tokenizer=DIRECTORY with the model's tokenizer.json",
            param="tokenizer",
        ) from error


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _sentencepiece(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    tokens, prefix = metadata["ggml.tokens"], metadata.get("ggml.add_space_prefix", True)
    unknown = metadata.get("ggml.unknown_token_id")
    model = _bpe(
        vocab=_vocabulary(tokens),
        merges=_merges_from_scores(tokens, metadata.get("ggml.scores", []), metadata.get("ggml.token_type", [])),
        unk_token=tokens[unknown] if unknown is not None and unknown < len(tokens) else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = tokenizers.Tokenizer(model)
    spaces = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _merges_from_scores(tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> list[tuple[str, str]]:
    """Every way to make a normal token of two others, best score first: SentencePiece merges by the result's score."""
    if len(scores) != len(tokens):
        raise HeadraceError(
            f"The GGUF file has {len(tokens)} tokens and {len(scores)} scores",
            rule="A llama tokenizer needs a score for each token",
            fix="Pass tokenizer=DIRECTORY with the model's tokenizer.json",
            param="tokenizer",
        )
    kinds = types or [TokenType.NORMAL] * len(tokens)
    normal = {token: score for token, score, kind in zip(tokens, scores, kinds, strict=False) if kind == 1}
    ranked = sorted(normal, key=normal.__getitem__, reverse=True)
    return [
        (token[:cut], token[cut:])
        for token in ranked
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in normal and token[cut:] in normal
    ]


def _add_tokens(backend: tokenizers.Tokenizer, metadata: Mapping[str, Any], special: Mapping[str, str]) -> None:
    """Control tokens are special; user-defined ones are matched whole too, but stay in decoded text."""
    tokens, types = metadata["ggml.tokens"], metadata.get("ggml.token_type", [])
    kinds = list(zip(tokens, types, strict=False))
    control = [token for token, kind in kinds if kind in (TokenType.CONTROL, TokenType.UNKNOWN)]
    ours = dict.fromkeys([*control, *special.values()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ours])
    plain = [token for token, kind in kinds if kind == TokenType.USER_DEFINED and token not in ours]
    backend.add_tokens([AddedToken(token, normalized=False) for token in plain])
