"""The forms in which Python users pass prompts and parameters, brought into one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, Union

from headrace.core.errors import HeadraceError
from headrace.core.sampling_params import SamplingParams

Prompt = Union[str, Sequence[int], Mapping[str, object]]  # noqa: UP007  (a runtime alias that reads in help())
"""Text, token ids, or vLLM's dicts: {"prompt": text} or {"prompt_token_ids": ids}."""

P = TypeVar("P")
_KEYS = {"prompt", "prompt_token_ids", "cache_salt"}


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """Text, or token ids, or (given both) the ids with their text; prompts with different salts share no cache."""

    text: str | None
    token_ids: list[int] | None
    cache_salt: str = ""


def parse_prompts(prompts: object) -> list[ParsedPrompt]:
    """One prompt or a list of them, in any form."""
    prompts = _plain(prompts)
    if isinstance(prompts, str | Mapping) or _is_ids(prompts):
        return [parse_prompt(prompts)]
    if isinstance(prompts, Sequence) and not isinstance(prompts, bytes):
        return [parse_prompt(prompt) for prompt in prompts]
    raise _wrong(prompts)


def parse_prompt(prompt: object) -> ParsedPrompt:
    """One prompt in any form."""
    prompt = _plain(prompt)
    if isinstance(prompt, str):
        return ParsedPrompt(prompt, None)
    if _is_ids(prompt):
        return ParsedPrompt(None, list(prompt))  # type: ignore[call-overload]  # _is_ids looked
    if isinstance(prompt, Mapping) and prompt.keys() <= _KEYS:
        text, ids, salt = prompt.get("prompt"), _plain(prompt.get("prompt_token_ids")), prompt.get("cache_salt") or ""
        good = isinstance(text, str | None) and (ids is None or ids == [] or _is_ids(ids)) and isinstance(salt, str)
        if good and not (text is None and ids is None):
            return ParsedPrompt(text, None if ids is None else list(ids), str(salt))  # type: ignore[call-overload]
    raise _wrong(prompt)


def per_prompt(name: str, value: P | Sequence[P], count: int) -> list[P]:
    """One value for all prompts, or a list with one each. Raises if the numbers differ."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise HeadraceError(
            f"{name} has {len(value)} entries for {count} prompts",
            rule="It must be one value for all prompts, or one for each",
            param=name,
        )
    return list(value)


def checked_params(params: object) -> SamplingParams:
    """`params`, if it is what it should be."""
    if isinstance(params, SamplingParams):
        return params
    raise HeadraceError(
        f"sampling_params is {params!r}",
        rule="It must be a SamplingParams, or a list with one for each prompt",
        fix="Use SamplingParams(temperature=0, max_tokens=64), for example",
        param="sampling_params",
    )


def no_tokenizer(rule: str) -> HeadraceError:
    """The refusal of what needs a tokenizer by an engine that was made without one."""
    return HeadraceError(
        "This engine has no tokenizer", rule=rule, fix="Pass prompt_token_ids, or leave out skip_tokenizer_init"
    )


def _plain(value: object) -> object:
    """Arrays and tensors as lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _is_ids(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and isinstance(value[0], int)
    )


def _wrong(prompt: object) -> HeadraceError:
    return HeadraceError(
        f"The prompt is {str(prompt)[:80]!r} ({type(prompt).__name__})",
        rule='A prompt is a string, a list of token ids, {"prompt": text} or {"prompt_token_ids": ids}, '
        "with a cache_salt if you like and no other key",
        param="prompts",
    )
