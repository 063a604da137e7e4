"""A tokenizer from a Hugging Face directory: tokenizer.json, and what transformers reads beside it.

`tokenizer_config.json` may add tokens and mark them as special; whether texts begin with BOS, tokenizer.json says.
The result encodes as transformers' AutoTokenizer does on the same files.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from headrace.core.errors import HeadraceError
from headrace.text.parts import DEFAULT_TEMPLATE, TokenizerParts

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_TOKEN_FIELDS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def load_directory(directory: Path) -> TokenizerParts:
    """The tokenizer in `directory`. Raises `HeadraceError` for a missing or broken file."""
    backend = _backend(directory)
    config = {**_json(directory / "special_tokens_map.json"), **_json(directory / "tokenizer_config.json")}
    special = {name: _content(config[name]) for name in _NAMED if config.get(name)}
    _add_tokens(backend, config, special)
    return TokenizerParts(backend, special, _templates(directory, config))


def _backend(directory: Path) -> tokenizers.Tokenizer:
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise _missing(directory)
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise HeadraceError(
            f"{path} cannot be read: {error}",
            rule="It must be a file of the `tokenizers` library",
            fix="Download the model again, and upgrade tokenizers if the file is newer than it",
        ) from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _missing(directory: Path) -> HeadraceError:
    others = [name for name in ("tokenizer.model", "tekken.json", "vocab.json") if (directory / name).is_file()]
    found = f"only {' and '.join(others)}" if others else "no tokenizer"
    convert = f"AutoTokenizer.from_pretrained({str(directory)!r}).save_pretrained({str(directory)!r})"
    return HeadraceError(
        f"There is no tokenizer.json in {directory}, {found}",
        rule="A tokenizer is read from tokenizer.json",
        fix=f"Make it once with transformers: {convert}" if others else "Name the directory that has it: tokenizer=...",
        param="tokenizer",
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HeadraceError(f"{path} is not JSON: {error}", fix="Download the model again") from error
    if not isinstance(value, dict):
        raise HeadraceError(f"{path} holds a {type(value).__name__}", rule="It must hold a JSON object")
    return value


def _content(token: str | Mapping[str, str]) -> str:
    return token if isinstance(token, str) else token["content"]


def _add_tokens(backend: tokenizers.Tokenizer, config: Mapping[str, Any], special: Mapping[str, str]) -> None:
    """Add the tokens that only the configuration declares, and mark those that it names as special."""
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    declared = sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0]))
    for token in (_added_token(entry) for _, entry in declared):
        if token.content not in known:
            backend.add_tokens([token])
            known[token.content] = token
    wanted = [known.get(content) or AddedToken(content, normalized=False) for content in special.values()]
    wanted += [AddedToken(content, normalized=False) for content in _extra_special(config) if content not in known]
    backend.add_special_tokens([_as_special(token) for token in wanted if not token.special])


def _added_token(entry: Mapping[str, Any]) -> AddedToken:
    return AddedToken(entry["content"], **{name: entry[name] for name in _TOKEN_FIELDS if name in entry})


def _as_special(token: AddedToken) -> AddedToken:
    fields = {name: getattr(token, name) for name in _TOKEN_FIELDS}
    return AddedToken(token.content, **{**fields, "special": True})


def _extra_special(config: Mapping[str, Any]) -> Iterator[str]:
    for name in ("additional_special_tokens", "extra_special_tokens"):
        tokens = config.get(name) or []
        for token in tokens.values() if isinstance(tokens, dict) else tokens:
            yield _content(token)


def _templates(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; a file of their own wins over the configuration."""
    stored = config.get("chat_template") or {}
    if isinstance(stored, str):
        stored = {DEFAULT_TEMPLATE: stored}
    elif isinstance(stored, list):
        stored = {entry["name"]: entry["template"] for entry in stored}
    files = {path.stem: path for path in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    main = directory / "chat_template.jinja"
    if main.is_file():
        files[DEFAULT_TEMPLATE] = main
    return {**stored, **{name: path.read_text(encoding="utf-8") for name, path in files.items()}}
