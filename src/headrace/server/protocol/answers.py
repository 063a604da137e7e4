"""The shapes of what is answered, as /openapi.json declares them.

Answers are not built from these classes (encoding a plain dict costs a tenth); tests hold them to what is sent.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "length", "abort", "error"]


class Shape(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class Empty(Shape):
    """The status says it all."""


class ErrorDetail(Shape):
    """`message` names the value, the rule and the cure; `param` the field at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(Shape):
    """OpenAI's error."""

    error: ErrorDetail


class CachedTokens(Shape):
    """How many of the prompt's tokens were in the prefix cache."""

    cached_tokens: int


class UsageCounts(Shape):
    """OpenAI's `usage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TopLogprob(Shape):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(TopLogprob):
    """The token that came, and the likeliest at its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Shape):
    """One entry a token."""

    content: list[ChatTokenLogprob]
    refusal: None


class PromptLogprob(Shape):
    """vLLM's entry for a token of the prompt."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]


class AssistantMessage(Shape):
    """The assistant's message."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Shape):
    """One of `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    token_ids: list[int] | None = None


class ChatCompletion(Shape):
    """A whole answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageCounts
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | None = None


class ChatDelta(Shape):
    """What a chunk adds to a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(Shape):
    """What a chunk adds to one of `n` answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class ChatCompletionChunk(Shape):
    """An event of a streamed answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: UsageCounts | None = None


class CompletionLogprobs(Shape):
    """Four columns, one entry a token."""

    text_offset: list[int]
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(Shape):
    """One of `n` continuations of one of the prompts."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: str | int | None
    prompt_logprobs: PromptLogprobs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Completion(Shape):
    """A whole answer of /v1/completions, and an event of a streamed one."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageCounts | None = None


class GeneratedToken(Shape):
    """A token as text-generation-inference shows it."""

    id: int
    text: str
    logprob: float | None
    special: bool


class GenerationDetails(Shape):
    """With `details`: how it ended, and the tokens."""

    finish_reason: Literal["length", "eos_token", "stop_sequence", "abort", "error"]
    generated_tokens: int
    seed: int | None
    prefill: list[None]
    tokens: list[GeneratedToken]


class StreamDetails(Shape):
    """How a stream ended."""

    finish_reason: Literal["length", "eos_token", "stop_sequence", "abort", "error"]
    generated_tokens: int
    input_length: int
    seed: int | None


class Generated(Shape):
    """A text for `inputs`."""

    generated_text: str
    details: GenerationDetails | None = None


class GenerateChunk(Shape):
    """An event of a stream for `inputs`; the last one has the whole text."""

    index: int
    token: GeneratedToken
    generated_text: str | None
    details: StreamDetails | None


Invocation = list[Generated] | list[list[Generated]] | ChatCompletion | Completion
InvocationChunk = GenerateChunk | ChatCompletionChunk | Completion
Continued = ChatCompletion | Completion
ContinuedChunk = ChatCompletionChunk | Completion


class ModelPermission(Shape):
    """OpenAI's old permission object."""

    id: str
    object: Literal["model_permission"]
    created: int
    allow_create_engine: bool
    allow_sampling: bool
    allow_logprobs: bool
    allow_search_indices: bool
    allow_view: bool
    allow_fine_tuning: bool
    organization: str
    group: None
    is_blocking: bool


class ModelCard(Shape):
    """A served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: None
    max_model_len: int
    permission: list[ModelPermission]


class ModelList(Shape):
    """A card for each served name."""

    object: Literal["list"]
    data: list[ModelCard]


class Tokenized(Shape):
    """`token_strs` come if they are asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Shape):
    """The text of the tokens."""

    prompt: str


class Version(Shape):
    """Headrace's version."""

    version: str


class Health(Shape):
    """What the engine does."""

    status: Literal["ready", "loading"]


class Load(Shape):
    """How many sequences are open; how many prompts, with how many tokens of work, wait for their first token."""

    server_load: int
    waiting_requests: int
    waiting_tokens: int
