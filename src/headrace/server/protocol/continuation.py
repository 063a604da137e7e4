"""The bodies of /v1/continue: those of the OpenAI routes, with token ids where messages or a prompt stood."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from headrace.core.errors import HeadraceError
from headrace.server.protocol.base import MAX_INT64, Body
from headrace.server.protocol.chat import ChatCompletionRequest
from headrace.server.protocol.completions import CompletionRequest, Prompt

_SEED_MASK = 2 * MAX_INT64 + 1
_TokenIds = Annotated[list[int], Field(min_length=1, fail_fast=True)]


Given = Annotated[Any, WithJsonSchema({"not": {}, "description": "Leave it out: the prompt is prompt_token_ids"})]
"""What said the prompt in the original request: refused, whatever it holds."""


class Continuation(Body):
    """The answer to `prompt_token_ids` that was cut after `output_token_ids`.

    It was the choice `index` of the original request: choices differ by their seeds, which count up from the
    request's.
    """

    prompt_token_ids: _TokenIds
    output_token_ids: _TokenIds
    index: int = Field(default=0, ge=0, le=MAX_INT64)

    def choice_seed(self, seed: int | None) -> int | None:
        """The seed that drew this choice; -1 stands for none."""
        return None if seed is None or seed == -1 else (seed + self.index) & _SEED_MASK


class ContinueChatRequest(Continuation, ChatCompletionRequest):
    """An answer of /v1/chat/completions goes on; the template has been applied to the messages."""

    endpoint: Literal["chat.completions"]
    messages: Given = Field(default=None, exclude=True)

    def check(self) -> None:
        """The messages have become token ids."""
        _refuse_prompt(self, "messages")
        super().check()

    @property
    def field_names(self) -> dict[str, str]:
        """What this body calls the fields of `SamplingParams`."""
        return {**super().field_names, "prompt": "prompt_token_ids"}


class ContinueCompletionRequest(Continuation, CompletionRequest):
    """An answer of /v1/completions goes on; `echo` says that it began with the prompt, which is not echoed again."""

    endpoint: Literal["completions"]
    rules: ClassVar[dict[str, str]] = {
        **CompletionRequest.rules,
        "endpoint": "It must be 'chat.completions' or 'completions'",
    }
    prompt: Given = Field(default=None, exclude=True)

    field_names: ClassVar[dict[str, str]] = {"prompt": "prompt_token_ids"}

    @property
    def prompts(self) -> list[Prompt]:
        """The one prompt."""
        return [self.prompt_token_ids]

    def check(self) -> None:
        """The prompt has become token ids."""
        _refuse_prompt(self, "prompt")
        super().check()


def _refuse_prompt(body: Continuation, name: str) -> None:
    if name in body.model_fields_set:
        raise HeadraceError(f"{name} is set", fix="Leave it out: the prompt is prompt_token_ids", param=name)
