"""The body of /v1/completions."""

from typing import Any, ClassVar, Self

from pydantic import model_validator

from headrace.core.errors import HeadraceError
from headrace.server.protocol.base import SamplingBody, Unsupported

Prompt = str | list[int]


class CompletionRequest(SamplingBody):
    """OpenAI's body, with vLLM's extras. Every prompt gets `n` choices, numbered prompt by prompt."""

    prompt: Any
    max_tokens: int | None = None
    logprobs: int | None = None
    echo: bool | None = False
    add_special_tokens: bool = True

    suffix: Unsupported = None
    best_of: Unsupported = None

    default_token_limit: ClassVar[int | None] = 16
    field_names: ClassVar[dict[str, str]] = {}

    @model_validator(mode="after")
    def _check_prompt(self) -> Self:
        _ = self.prompts
        return self

    @property
    def token_limit(self) -> int | None:
        """`max_tokens`; with `echo`, 0 asks for the prompt alone."""
        return 1 if self.prompt_only else self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many alternatives a position carries; None for no logprobs at all."""
        return self.logprobs

    @property
    def prompt_only(self) -> bool:
        """Whether nothing is to be generated: the prompt is echoed, with its logprobs if they are asked for."""
        return bool(self.echo) and self.max_tokens == 0

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts, from any of OpenAI's four forms. Raises `HeadraceError` for what is none of them."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt, list) and prompt:
            if all(isinstance(part, str) for part in prompt):
                return list(prompt)
            if _are_token_ids(prompt):
                return [prompt]
            if all(isinstance(part, list) and _are_token_ids(part) for part in prompt):
                return list(prompt)
        raise HeadraceError(
            "prompt is empty" if prompt in (None, []) else f"prompt is {str(prompt)[:60]!r}",
            rule="It must be a string, a list of strings, a list of token ids or a list of such lists, not empty",
            param="prompt",
        )


def _are_token_ids(part: list[object]) -> bool:
    return all(isinstance(token, int) and not isinstance(token, bool) for token in part)
