"""The tokenizer that the engine's users get: text to token ids and back, with Hugging Face's names.

Encoding always goes through the library's batch call: it lets other Python threads run, the single one does not.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

from headrace.core.errors import HeadraceError
from headrace.text.chat_template import ChatTemplates, load_chat_template
from headrace.text.gguf_tokenizer import load_gguf
from headrace.text.hf_tokenizer import load_directory
from headrace.text.parts import DEFAULT_TEMPLATE, TokenizerParts
from headrace.text.pieces import Pieces
from headrace.text.token_bytes import TokenBytes, WholeTexts

_MAX_TOKEN_ID = 2**32 - 1


def open_tokenizer(path: Path | str, *, chat_template: str | None = None) -> "Tokenizer":
    """The tokenizer of a Hugging Face directory or of a GGUF file, whichever `path` is.

    `chat_template`, a file or the template itself, takes the place of the model's own. Raises `HeadraceError`.
    """
    path = Path(path)
    if not path.exists():
        raise HeadraceError(f"There is no file or directory {path}", fix="Check the path", param="tokenizer")
    tokenizer = Tokenizer.from_directory(path) if path.is_dir() else Tokenizer.from_gguf(path)
    return tokenizer if chat_template is None else tokenizer.with_chat_template(load_chat_template(chat_template))


class Tokenizer:
    """Text to token ids and back. Safe to share between threads; nothing in it changes once it is made."""

    def __init__(self, parts: TokenizerParts) -> None:
        self._parts = parts
        self._backend = parts.backend
        self._templates = ChatTemplates(parts.chat_templates)
        self._special_ids = self._ids_of_special_tokens()
        self._token_bytes = TokenBytes(parts.backend)
        self._whole_texts = WholeTexts(self._token_bytes)

    @classmethod
    def from_directory(cls, path: Path | str) -> "Tokenizer":
        """From tokenizer.json and the files beside it. Raises `HeadraceError` for a missing or broken one."""
        return cls(load_directory(Path(path)))

    @classmethod
    def from_gguf(cls, path: Path | str) -> "Tokenizer":
        """From a GGUF file's metadata. Raises `HeadraceError` for a broken file or a kind that is not served."""
        return cls(load_gguf(Path(path)))

    def with_chat_template(self, source: str) -> "Tokenizer":
        """The same tokenizer with `source` as its chat template."""
        return Tokenizer(TokenizerParts(self._backend, self._parts.special_tokens, {DEFAULT_TEMPLATE: source}))

    @property
    def is_byte_level(self) -> bool:
        """Whether text is the tokens' bytes, one after the other."""
        return self._token_bytes.is_byte_level

    @property
    def bytes_by_id(self) -> Mapping[int, bytes]:
        """Token id -> its bytes, for any integer."""
        return self._token_bytes

    @property
    def whole_texts(self) -> Mapping[int, str | None]:
        """Token id -> the text of its bytes, None if they are not whole characters; for any integer."""
        return self._whole_texts

    @cached_property
    def pieces(self) -> Pieces:
        """Token id -> the text it adds, for a tokenizer that is not byte-level."""
        return Pieces(self._backend)

    @property
    def special_ids(self) -> frozenset[int]:
        """`all_special_ids` as a set."""
        return self._special_ids

    def _ids_of_special_tokens(self) -> frozenset[int]:
        added = self._backend.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    @property
    def backend(self) -> Any:
        """The `tokenizers.Tokenizer` underneath."""
        return self._backend

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, the added ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text, if the model has one."""
        return self._parts.special_tokens.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The token that ends an answer, if the model has one."""
        return self._parts.special_tokens.get("eos_token")

    @property
    def bos_token_id(self) -> int | None:
        """The id of `bos_token`."""
        return self._id_of(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """The id of `eos_token`."""
        return self._id_of(self.eos_token)

    @property
    def all_special_ids(self) -> list[int]:
        """The ids that `skip_special_tokens` leaves out of text, in order."""
        return sorted(self._special_ids)

    @property
    def chat_template(self) -> str | None:
        """The source of the chat template, if there is one."""
        return self._templates.default

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`; `add_special_tokens` frames it (BOS) as the model's files say."""
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """Token ids of each text. Raises `HeadraceError` for what is not text."""
        for text in texts:
            if not isinstance(text, str):
                raise _not_text(text)
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        except (TypeError, UnicodeEncodeError) as error:  # half of a surrogate pair
            raise _not_text(texts) from error
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: int | Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; an id that is no token adds nothing, bytes that are no character become U+FFFD."""
        token_ids = [ids] if isinstance(ids, int) else list(ids)
        for token_id in token_ids:
            if not isinstance(token_id, int) or not 0 <= token_id <= _MAX_TOKEN_ID:
                raise HeadraceError(f"{token_id!r} is not a token id", rule="Token ids are integers from 0")
        return self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens)

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...
    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int | None]: ...
    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int | None] | None:
        """The id of a token, or of each of a list; for what is no token, the id of the unknown token or None."""
        if isinstance(tokens, str):
            return self._id_of(tokens)
        return [self._id_of(token) for token in tokens]

    @overload
    def convert_ids_to_tokens(self, ids: int) -> str | None: ...
    @overload
    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]: ...
    def convert_ids_to_tokens(self, ids: int | list[int]) -> str | list[str | None] | None:
        """The token of an id as the vocabulary spells it, or of each of a list; None for what is no token."""
        if isinstance(ids, int):
            return self._backend.id_to_token(ids)
        return [self._backend.id_to_token(token_id) for token_id in ids]

    def _id_of(self, token: str | None) -> int | None:
        if token is None:
            return None
        token_id = self._backend.token_to_id(token)
        unknown = self._parts.special_tokens.get("unk_token")
        return self._backend.token_to_id(unknown) if token_id is None and unknown is not None else token_id

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to the text; a token may hold a part of a character."""
        return self._token_bytes[token_id]

    def token_text(self, token_id: int) -> str:
        """The text of one token by itself, with its leading space; U+FFFD for a part of a character."""
        return self._token_bytes[token_id].decode("utf-8", "replace")

    @overload
    def apply_chat_template(self, messages: object, *, tokenize: Literal[False] = False, **options: Any) -> str: ...
    @overload
    def apply_chat_template(self, messages: object, *, tokenize: Literal[True], **options: Any) -> list[int]: ...
    def apply_chat_template(
        self,
        messages: object,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: object = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, object] | None = None,
        tokenize: bool = False,
        **kwargs: object,
    ) -> str | list[int]:
        """The prompt for a chat, as text or (`tokenize`) as ids. Raises `HeadraceError`.

        `chat_template` is the name of one of the model's templates, or a template. The template sees `kwargs` and
        `chat_template_kwargs`; what a client sent belongs in the second, which cannot set the arguments here.
        """
        prompt = self._templates.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            chat_template=chat_template,
            variables={**self._parts.special_tokens, **kwargs, **(chat_template_kwargs or {})},
        )
        return self.encode(prompt, add_special_tokens=False) if tokenize else prompt


def _not_text(texts: object) -> HeadraceError:
    return HeadraceError(
        f"The prompt is {texts!r:.200}",
        rule="It must be a string of valid Unicode, without half of a surrogate pair",
        fix="Send text, or prompt_token_ids",
        param="prompt",
    )
