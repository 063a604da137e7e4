"""The body of /v1/completions."""

from typing import Annotated, ClassVar, cast

from pydantic import Field

from headrace.core.errors import HeadraceError
from headrace.core.sampling_params import MAX_N
from headrace.server.protocol.base import Ints, SamplingBody
from headrace.server.protocol.unsupported import Unsupported

Prompt = str | list[int]

MAX_PROMPTS = 2_048
"""OpenAI's limit for lists of inputs."""

_Several = Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)


class CompletionRequest(SamplingBody):
    """OpenAI's body, with vLLM's extras. Every prompt gets `n` choices, numbered prompt by prompt."""

    # Token ids first: to say that they are no string, pydantic would make objects of all of them.
    prompt: (
        Annotated[list[int], Field(min_length=1, fail_fast=True)]
        | Annotated[list[Ints], _Several]
        | Annotated[list[str], _Several]
        | str
    ) = Field(union_mode="left_to_right")
    max_tokens: int | None = None
    logprobs: int | None = None
    echo: bool | None = False
    add_special_tokens: bool = True

    suffix: Unsupported = None
    best_of: Unsupported = None

    default_token_limit: ClassVar[int | None] = 16
    field_names: ClassVar[dict[str, str]] = {}
    rules: ClassVar[dict[str, str]] = {
        **SamplingBody.rules,
        "prompt": "It must be a string, a list of token ids, or a list of strings or of such lists, not empty "
        f"and of at most {MAX_PROMPTS}",
    }

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
        """The prompts, from any of OpenAI's four forms."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        return [prompt] if isinstance(prompt[0], int) else cast(list[Prompt], prompt)

    def check(self) -> None:
        """There are not too many choices."""
        super().check()
        num_prompts, n = len(self.prompts), self.n or 1
        if num_prompts * n > MAX_N:
            raise HeadraceError(
                f"n is {n}" if num_prompts == 1 else f"There are {num_prompts} prompts and n is {n}",
                rule=f"A request has at most {MAX_N} choices",
                fix="Send several requests",
                param="n",
            )
