"""Token ids back to text, one at a time: a piece comes out as soon as nothing that follows can change it.

The pieces of a sequence, joined, are exactly what decoding all its ids at once gives. Two ways: byte-level BPE adds up
bytes and lets out whole characters; other vocabularies (SentencePiece) ask the library's decoder, a token at a time.
"""

import codecs
import itertools
from collections.abc import Sequence
from typing import Protocol

from headrace.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"
_Utf8 = codecs.getincrementaldecoder("utf-8")

_MOST_HELD_TOKENS = 32
"""How many tokens are decoded together where one cannot be by itself: no decoder looks back further than half of it."""

PROMPT_TAIL_TOKENS = 8
"""How many of a prompt's last tokens are enough for a detokenizer that continues it."""


class IncrementalDetokenizer:
    """Detokenizes one sequence. `prompt_tail` are the last ids before it: a first word then keeps its leading space,
    and a character that began in the prompt is completed.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_tail: Sequence[int] = (), *, skip_special_tokens: bool = True
    ) -> None:
        kind = _Bytes if tokenizer.is_byte_level else _Pieces
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._decoder: _Decoder = kind(tokenizer)
        self._decoder.prime([token_id for token_id in prompt_tail if token_id not in self._skipped])

    def add(self, token_id: int) -> str:
        """The text that is certain now that `token_id` has come, often empty in the middle of a character."""
        return "" if token_id in self._skipped else self._decoder.add(token_id)

    def flush(self) -> str:
        """The rest, at the end of the sequence; an incomplete character becomes U+FFFD."""
        return self._decoder.flush()

    @property
    def pending_bytes(self) -> bytes:
        """The bytes that have come and are not yet in any text: the beginning of a character, or a run of bytes."""
        return self._decoder.pending_bytes


class _Decoder(Protocol):
    def prime(self, token_ids: Sequence[int]) -> None: ...
    def add(self, token_id: int) -> str: ...
    def flush(self) -> str: ...
    @property
    def pending_bytes(self) -> bytes: ...


class _Bytes:
    """Byte-level BPE: the text is the tokens' bytes as UTF-8, whatever the borders between them.

    Most tokens are whole characters; between two of them nothing is pending, and their text is always the same.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bytes = tokenizer.bytes_by_id
        self._whole_texts = tokenizer.whole_texts
        self._utf8 = _Utf8("replace")
        self._pending = False

    def prime(self, token_ids: Sequence[int]) -> None:
        """After whole characters nothing is pending, whatever came before them."""
        if token_ids and not self._whole_texts[token_ids[-1]]:
            self._decode(b"".join(map(self._bytes.__getitem__, token_ids)))

    def add(self, token_id: int) -> str:
        text = None if self._pending else self._whole_texts[token_id]
        return self._decode(self._bytes[token_id]) if text is None else text

    def flush(self) -> str:
        return self._decode(b"", final=True)

    def _decode(self, data: bytes, final: bool = False) -> str:
        text = self._utf8.decode(data, final)
        self._pending = bool(self._utf8.getstate()[0])
        return text

    @property
    def pending_bytes(self) -> bytes:
        return self._utf8.getstate()[0]


class _Pieces:
    """Other vocabularies: what a token adds does not depend on the tokens before it, with two exceptions.

    A run of byte tokens is good UTF-8 or not as a whole, so it is held until it ends. The start of a text is special
    (a space is stripped), so until some text has come, everything is decoded together; with a decoder that looks
    further than one token, always.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces = tokenizer.pieces
        self._held: list[int] = []
        self._given = 0
        self._started = False

    def prime(self, token_ids: Sequence[int]) -> None:
        for token_id in token_ids:
            self.add(token_id)
        unfinished = self._unfinished_character()
        self.flush()
        if self._started:
            self._held = unfinished

    def _unfinished_character(self) -> list[int]:
        utf8 = _Utf8("replace")
        utf8.decode(self.pending_bytes)
        count = len(utf8.getstate()[0])
        return self._held[len(self._held) - count :]

    def add(self, token_id: int) -> str:
        piece = self._pieces[token_id]
        if piece is None:
            return ""
        if self._started and not self._held and not piece.is_byte:
            return piece.text
        self._held.append(token_id)
        return "" if piece.is_byte else self._settle(final=False)

    def flush(self) -> str:
        return self._settle(final=True)

    def _settle(self, final: bool) -> str:
        if self._started:
            text, self._held = self._pieces.continuation(self._held), []
            return text
        text = self._tokenizer.decode(self._held, skip_special_tokens=False)
        if text.endswith(_REPLACEMENT) and not final and not self._pieces.independent:
            return ""
        new, self._given = text[self._given :], len(text)
        if text and self._pieces.independent:
            self._started, self._held = True, []
        elif len(self._held) >= _MOST_HELD_TOKENS and not text.endswith(_REPLACEMENT):
            self._held = self._held[-_MOST_HELD_TOKENS // 2 :]
            self._given = len(self._tokenizer.decode(self._held, skip_special_tokens=False))
        return new

    @property
    def pending_bytes(self) -> bytes:
        run = itertools.takewhile(self._is_byte, reversed(self._held))
        return b"".join(map(self._tokenizer.token_bytes, run))[::-1]

    def _is_byte(self, token_id: int) -> bool:
        piece = self._pieces[token_id]
        return piece is not None and piece.is_byte
