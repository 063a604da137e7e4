"""The body of /v1/chat/completions."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from headrace.core.errors import HeadraceError
from headrace.server.errors import ApiError, shown_name
from headrace.server.protocol.base import Body, Harmless, SamplingBody
from headrace.server.protocol.unsupported import Unsupported, unsupported

TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_MEDIA = ("image_url", "input_audio", "video_url", "file")

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
"""OpenAI's; a model's template may refuse some of them."""


class ContentPart(Body):
    """A part of a message. Only text is served; the fields of the others are declared to be refused by name."""

    type: str
    text: str | None = None
    refusal: str | None = None
    prompt_cache_breakpoint: Harmless = None
    image_url: Unsupported = None
    input_audio: Unsupported = None
    video_url: Unsupported = None
    file: Unsupported = None

    def check(self) -> None:
        """Text is what is served."""
        if self.type not in TEXT_PARTS:
            raise _not_text(self.type, "type")
        for name in _MEDIA:
            if getattr(self, name) is not None:
                raise _not_text(name, name)
        if self.text is None and self.refusal is None:
            raise HeadraceError(f"A message part of type {self.type!r} has no text", fix="Add its text", param="text")

    def undeclared(self, name: str) -> HeadraceError:
        """The error for a field that is not declared; another kind of part has fields of its own."""
        return super().undeclared(name) if self.type in TEXT_PARTS else _not_text(self.type, "type")


class ChatMessage(Body):
    """A message. What an assistant's message of ours carries can be sent back as it came."""

    role: Role
    content: str | Annotated[list[ContentPart], Field(fail_fast=True)] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    annotations: Harmless = None
    tool_call_id: Unsupported = None
    tool_calls: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None

    def check(self) -> None:
        """There is content, and nothing that is not served."""
        for name in ("tool_calls", "function_call", "tool_call_id", "audio"):
            if getattr(self, name):
                fix = "Put it into the content: tool calls are not built yet"
                raise unsupported(f"messages[].{name}", fix, param=name)
        if self.content is None and self.role != "assistant":
            raise HeadraceError(
                f"A message of the role {self.role} has no content",
                rule="Only an assistant's message may do without",
                fix="Add its text",
                param="content",
            )

    def as_template_input(self) -> dict[str, Any]:
        """The message as chat templates know it: content is a string, and absent fields are absent."""
        message: dict[str, Any] = {"role": self.role, "content": _text(self.content)}
        if self.name is not None:
            message["name"] = self.name
        reasoning = self.reasoning_content if self.reasoning is None else self.reasoning
        if reasoning is not None:
            message["reasoning_content"] = reasoning
        return message


class ChatTemplateBody(Body):
    """The fields that say how messages become a prompt; /tokenize shares them."""

    messages: Annotated[list[ChatMessage], Field(fail_fast=True)] = Field(min_length=1)
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    def check(self) -> None:
        """The prompt ends in one way."""
        super().check()
        if self.continue_final_message and self.add_generation_prompt:
            raise HeadraceError(
                "continue_final_message and add_generation_prompt are both true",
                rule="The prompt ends either inside the last message or before a new one",
                fix="Set add_generation_prompt to false",
                param="continue_final_message",
            )


class ChatCompletionRequest(ChatTemplateBody, SamplingBody):
    """OpenAI's body, with vLLM's extras."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = None
    parallel_tool_calls: Harmless = None
    include_reasoning: Harmless = None
    echo: Literal[False] = False

    tools: Unsupported = None
    tool_choice: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    modalities: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    moderation: Unsupported = None
    web_search_options: Unsupported = None
    documents: Unsupported = None
    chat_template: Unsupported = None

    default_token_limit: ClassVar[int | None] = None
    prompt_only: ClassVar[bool] = False
    rules: ClassVar[dict[str, str]] = {
        **SamplingBody.rules,
        "echo": "It must be false or left out: /v1/completions echoes prompts",
    }

    def check(self) -> None:
        """Alternatives come with logprobs."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise HeadraceError(
                f"top_logprobs is {self.top_logprobs} and logprobs is not true",
                fix="Set logprobs to true",
                param="top_logprobs",
            )

    @property
    def token_limit(self) -> int | None:
        """`max_completion_tokens`, or the older `max_tokens`."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def field_names(self) -> dict[str, str]:
        """What this body calls the fields of `SamplingParams`."""
        limit = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        return {"prompt": "messages", "logprobs": "top_logprobs", "max_tokens": limit}

    @property
    def num_logprobs(self) -> int | None:
        """How many alternatives a position carries; None for no logprobs at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


def _not_text(name: str, param: str) -> ApiError:
    what, fix = f"{shown_name(name)} is not supported: this model reads text", "Send parts of type text"
    return ApiError(what, fix=fix, param=param, code="unsupported_parameter")


def _text(content: str | list[ContentPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text or part.refusal or "" for part in content)
