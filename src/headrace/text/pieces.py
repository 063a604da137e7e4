"""What a token adds to a text that has already begun, for vocabularies whose decoder is the library's."""

from collections.abc import Sequence
from typing import NamedTuple

import tokenizers

from headrace.text.token_bytes import decoder_steps, fallback_byte

_INDEPENDENT_STEPS = {"Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}


class Piece(NamedTuple):
    """The text that a token adds, and whether it is one byte of a run that only makes text together."""

    text: str
    is_byte: bool


class Pieces(dict[int, Piece | None]):
    """Token id -> its piece, worked out when first asked for; None for an id that is no token.

    The decoder treats the start of a text in its own way, so a token is decoded behind another one, the anchor, and
    the anchor's text cut off. A decoder that looks further than that has no anchor: `independent` is False.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        super().__init__()
        self._backend = backend
        self._anchor: int | None = None
        self._anchor_length = 0
        if set(decoder_steps(backend)) <= _INDEPENDENT_STEPS:
            self._find_anchor()

    @property
    def independent(self) -> bool:
        """Whether a token's text can be told without all the tokens before it."""
        return self._anchor is not None

    def continuation(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids` in the middle of a text."""
        if self._anchor is None or not token_ids:
            return ""
        return self._decode([self._anchor, *token_ids])[self._anchor_length :]

    def __missing__(self, token_id: int) -> Piece | None:
        token = self._backend.id_to_token(token_id)
        piece = None if token is None else Piece(self.continuation([token_id]), fallback_byte(token) is not None)
        self[token_id] = piece
        return piece

    def _decode(self, token_ids: list[int]) -> str:
        return self._backend.decode(token_ids, skip_special_tokens=False)

    def _find_anchor(self) -> None:
        """A token is one if it gives the same text wherever it stands; without a decoder, spaces stand between them."""
        between = " " if self._backend.decoder is None else ""
        for token_id in range(self._backend.get_vocab_size()):
            text = self._decode([token_id])
            if text.isalnum() and self._decode([token_id] * 2) == text + between + text:
                self._anchor, self._anchor_length = token_id, len(text)
                return
