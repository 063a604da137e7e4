"""How a byte-level vocabulary's texts are split before the merges: what each `tokenizer.ggml.pre` stands for."""

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from headrace.core.errors import HeadraceError

_WORDS_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_WORDS_AND_SPACE}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_WORDS_AND_SPACE}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Splitting:
    """Patterns that cut a text one after the other, each match a piece of its own, and what goes with them.

    `ignore_merges`: a piece that is a token is taken whole. `nfc`: texts are normalized first. `add_bos`: texts begin
    with BOS unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    nfc: bool = False
    add_bos: bool = False

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        """The cuts, then the bytes of each piece spelled as characters."""
        cuts = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in self.patterns]
        return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_DIGITS_THEN_GPT2 = Splitting((r"\p{N}", _GPT2))
_LLAMA3_SPLITTING = Splitting((_LLAMA3,), ignore_merges=True, add_bos=True)
_QWEN2_SPLITTING = Splitting((_QWEN2,), nfc=True)

_SPLITTINGS = {
    "default": Splitting((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "gpt-2": Splitting((_GPT2,)),
    "smollm": _DIGITS_THEN_GPT2,
    "starcoder": _DIGITS_THEN_GPT2,
    "llama-bpe": _LLAMA3_SPLITTING,
    "llama3": _LLAMA3_SPLITTING,
    "llama-v3": _LLAMA3_SPLITTING,
    "qwen2": _QWEN2_SPLITTING,
    "deepseek-r1-qwen": _QWEN2_SPLITTING,
    "tekken": Splitting((_TEKKEN,), ignore_merges=True, add_bos=True),
}


def splitting(name: str) -> Splitting:
    """The splitting called `name`. Raises `HeadraceError` for one that is not known: a guess would mis-tokenize."""
    if name not in _SPLITTINGS:
        raise HeadraceError(
            f"The GGUF file's tokenizer.ggml.pre is {name!r}",
            rule=f"The ones that are read are {', '.join(sorted(_SPLITTINGS))}",
            fix="Pass tokenizer=DIRECTORY with the model's tokenizer.json",
            param="tokenizer",
        )
    return _SPLITTINGS[name]
