"""What a GGUF file says of its tokenizer, checked and typed; nothing is built yet."""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.core.gguf_header import GgufHeader, read_header

_NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`: what each token of a vocabulary is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class GgufVocabulary:
    """The tokenizer's metadata. `types` has one entry a token; `add_bos` is None where the file leaves it open."""

    kind: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    merges: list[tuple[str, str]]
    special_tokens: dict[str, str]
    add_bos: bool | None
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | None


def read_vocabulary(path: Path) -> GgufVocabulary:
    """The vocabulary in the file at `path`. Raises `HeadraceError` if it is no sound GGUF file or has none we read."""
    header = read_header(path)
    kind, tokens = _text(header, "ggml.model"), header.strings("tokenizer.ggml.tokens")
    if kind not in ("gpt2", "llama") or not tokens:
        raise _not_read(path, f"the tokenizer {kind!r} with {len(tokens)} tokens")
    types = [int(number) for number in header.numbers("tokenizer.ggml.token_type")]
    scores = [float(number) for number in header.numbers("tokenizer.ggml.scores")]
    if kind == "llama" and len(scores) != len(tokens):
        raise _not_read(path, f"{len(tokens)} tokens and {len(scores)} scores")
    return GgufVocabulary(
        kind=kind,
        pre=_text(header, "ggml.pre") or "default",
        tokens=tokens,
        types=types if len(types) == len(tokens) else [TokenType.NORMAL] * len(tokens),
        scores=scores,
        merges=[_pair(merge) for merge in header.strings("tokenizer.ggml.merges")],
        special_tokens=_special_tokens(header, tokens),
        add_bos=_flag(header, "ggml.add_bos_token"),
        add_eos=_flag(header, "ggml.add_eos_token") is True,
        add_space_prefix=_flag(header, "ggml.add_space_prefix") is not False,
        chat_template=_text(header, "chat_template"),
    )


def _not_read(path: Path, what: str) -> HeadraceError:
    return HeadraceError(
        f"{path} has {what}",
        rule="GGUF tokenizers of the kinds gpt2 and llama are read, the second with a score for each token",
        fix="Pass tokenizer=DIRECTORY with the model's tokenizer.json",
        param="tokenizer",
    )


def _text(header: GgufHeader, key: str) -> str | None:
    value = header.scalars.get(f"tokenizer.{key}")
    return value if isinstance(value, str) else None


def _flag(header: GgufHeader, key: str) -> bool | None:
    value = header.scalars.get(f"tokenizer.{key}")
    return value if isinstance(value, bool) else None


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _special_tokens(header: GgufHeader, tokens: list[str]) -> dict[str, str]:
    """By Hugging Face's names."""
    ids = {name: header.scalars.get(f"tokenizer.ggml.{short}_token_id") for name, short in _NAMED.items()}
    return {name: tokens[i] for name, i in ids.items() if isinstance(i, int) and 0 <= i < len(tokens)}
