"""The forms in which Python users pass prompts and parameters, brought into one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, Union

from headrace.core.errors import HeadraceError

Prompt = Union[str, Sequence[int], Mapping[str, object]]  # noqa: UP007  (a runtime alias that reads in help())
"""Text, token ids, or vLLM's dicts: {"prompt": text} or {"prompt_token_ids": ids}."""

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """Text, or token ids, or (given both) the ids with their text."""

    text: str | None
    token_ids: list[int] | None


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
    if isinstance(prompt, Mapping):
        text, ids = prompt.get("prompt"), _plain(prompt.get("prompt_token_ids"))
        good = isinstance(text, str | None) and (ids is None or ids == [] or _is_ids(ids))
        if good and not (text is None and ids is None):
            return ParsedPrompt(text, None if ids is None else list(ids))  # type: ignore[call-overload]  # looked at
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
        rule='A prompt is a string, a list of token ids, {"prompt": text} or {"prompt_token_ids": ids}',
        param="prompts",
    )
