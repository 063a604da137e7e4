"""The bytes that a token stands for: what detokenization adds up, and what logprobs show."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tokenizers

_SPACE = "\u2581"

_MAX_TOKEN_ID = 2**32 - 1
"""What the library's tokens are numbered up to."""


def _byte_level_alphabet() -> dict[str, int]:
    """Byte-level BPE spells each byte as one visible character; this is the way back.

    Source: the GPT-2 encoder (https://github.com/openai/gpt-2/blob/master/src/encoder.py).
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    spelled = {chr(byte): byte for byte in visible}
    return spelled | {chr(256 + index): byte for index, byte in enumerate(hidden)}


class TokenBytes(dict[int, bytes]):
    """Token id -> its bytes, worked out when first asked for; an id that is no token has none."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        super().__init__()
        self._backend = backend
        self._added = backend.get_added_tokens_decoder()
        self.is_byte_level = decoder_steps(backend) == ("ByteLevel",)
        self._spell: Callable[[int, str], bytes] = self._from_alphabet if self.is_byte_level else self._from_pieces
        self._alphabet = _byte_level_alphabet()

    def __missing__(self, token_id: int) -> bytes:
        token = self._backend.id_to_token(token_id) if 0 <= token_id <= _MAX_TOKEN_ID else None
        if token is None:
            return b""
        value = self[token_id] = self._spell(token_id, token)
        return value

    def _from_alphabet(self, _: int, token: str) -> bytes:
        """As the library's ByteLevel decoder does it: a token with a character outside the alphabet is itself."""
        try:
            return bytes([self._alphabet[character] for character in token])
        except KeyError:
            return token.encode()

    def _from_pieces(self, token_id: int, token: str) -> bytes:
        if token_id in self._added:
            return token.encode()
        byte = fallback_byte(token)
        return token.replace(_SPACE, " ").encode() if byte is None else bytes([byte])


class WholeTexts(dict[int, str | None]):
    """Token id -> its text, if its bytes are whole characters; else None. Worked out when first asked for."""

    def __init__(self, bytes_by_id: Mapping[int, bytes]) -> None:
        super().__init__()
        self._bytes = bytes_by_id

    def __missing__(self, token_id: int) -> str | None:
        try:
            text = self._bytes[token_id].decode()
        except UnicodeDecodeError:
            text = None
        self[token_id] = text
        return text


def fallback_byte(token: str) -> int | None:
    """The byte that a token like <0x0A> stands for, or None for any other token."""
    if len(token) != 6 or not token.startswith("<0x") or not token.endswith(">"):
        return None
    try:
        return int(token[3:5], 16)
    except ValueError:
        return None


def decoder_steps(backend: tokenizers.Tokenizer) -> tuple[str, ...]:
    """The kinds of the decoders that turn tokens into text, in their order, by the library's names."""
    return tuple(_kinds(json.loads(backend.decoder.__getstate__()))) if backend.decoder is not None else ()


def _kinds(decoder: Any) -> Iterator[str]:
    if decoder["type"] != "Sequence":
        yield decoder["type"]
    for step in decoder.get("decoders", ()):
        yield from _kinds(step)
