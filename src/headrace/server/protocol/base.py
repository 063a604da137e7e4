"""What the bodies of both OpenAI routes have in common: strict types, no unknown field, and fields refused by name."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headrace.core.errors import HeadraceError
from headrace.server.errors import ApiError, from_validation

MAX_INT64 = 2**63 - 1


class Body(BaseModel):
    """A request body. A field that is not declared is refused by name; JSON types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The body in `raw` JSON. Raises `HeadraceError` for the first thing that is wrong with it."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise from_validation(error) from None


class StreamOptions(Body):
    """`include_usage` adds a last chunk with the counts; `continuous_usage_stats` puts them into every chunk."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False

    @model_validator(mode="after")
    def _no_obfuscation(self) -> Self:
        if self.include_obfuscation:
            raise unsupported("stream_options.include_obfuscation", "Leave it out")
        return self


Harmless = Annotated[Any, "accepted: it changes nothing in the answer"]
Unsupported = Annotated[Any, "known by name, refused unless it asks for nothing"]

Accepts = Callable[[Any], bool]


def _is(*harmless: object) -> Accepts:
    return lambda value: any(value == each and type(value) is type(each) for each in harmless)


def _is_text_format(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") == "text"


NOT_BUILT = "Leave it out: it is not built yet"
UNSUPPORTED: dict[str, tuple[Accepts, str]] = {
    "response_format": (_is_text_format, "Use {'type': 'text'}: grammars are not built yet"),
    "structured_outputs": (_is(), "Leave it out: grammars are not built yet"),
    "guided_json": (_is(), "Leave it out: grammars are not built yet"),
    "guided_regex": (_is(), "Leave it out: grammars are not built yet"),
    "guided_choice": (_is(), "Leave it out: grammars are not built yet"),
    "guided_grammar": (_is(), "Leave it out: grammars are not built yet"),
    "tools": (_is([]), "Leave it out: tool calls are not built yet"),
    "tool_choice": (_is("none"), "Use 'none' or leave it out: tool calls are not built yet"),
    "functions": (_is([]), "Leave it out: tool calls are not built yet"),
    "function_call": (_is("none"), "Use 'none' or leave it out: tool calls are not built yet"),
    "service_tier": (_is("auto", "default"), "Use 'auto': there is one tier"),
    "store": (_is(False), "Use false: answers are not stored"),
    "modalities": (_is(["text"]), "Use ['text']: the models are text models"),
    "audio": (_is(), "Leave it out: the models are text models"),
    "prediction": (_is(), "Leave it out: predicted outputs are not built"),
    "reasoning_effort": (_is(), "Leave it out; pass what the model's template knows in chat_template_kwargs"),
    "verbosity": (_is(), "Leave it out, and ask for brevity in a message"),
    "web_search_options": (_is(), "Leave it out: the server does not search the web"),
    "suffix": (_is(""), "Leave it out: filling in the middle is not supported"),
    "best_of": (_is(1), "Ask for n choices and choose among them"),
    "use_beam_search": (_is(False), "Use LLM.beam_search in Python"),
    "documents": (_is([]), "Put the documents into a message"),
    "chat_template": (_is(), "Start the server with --chat-template"),
    "truncate_prompt_tokens": (_is(), "Truncate the prompt before sending it"),
    "kv_transfer_params": (_is({}), "Leave it out"),
    "vllm_xargs": (_is({}), "Leave it out: there are no custom logits processors"),
    "logprob_token_ids": (_is([]), "Use top_logprobs and pick the tokens that you want"),
    "thinking_token_budget": (_is(), "Limit the answer with max_tokens"),
    "repetition_detection": (_is(), "Use repetition_penalty, frequency_penalty or max_tokens"),
    "stream_interval": (_is(1), "Leave it out; every token is streamed as it is made"),
    "length_penalty": (_is(1, 1.0), "It belongs to beam search: use LLM.beam_search in Python"),
    "early_stopping": (_is(False), "It belongs to beam search: use LLM.beam_search in Python"),
}
"""Field -> (which values ask for nothing special, what to do instead)."""


def unsupported(name: str, fix: str) -> ApiError:
    """The 400 for a field that is known and not served."""
    return ApiError(f"{name} is not supported", fix=fix, param=name, code="unsupported_parameter")


class SamplingBody(Body):
    """The fields that both OpenAI routes share: OpenAI's, then vLLM's extras, then what is refused by name."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = 0.0
    frequency_penalty: float | None = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: list[int] | None = None
    min_tokens: int | None = 0
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    prompt_logprobs: int | None = None
    priority: int = Field(default=0, ge=-MAX_INT64 - 1, le=MAX_INT64)
    cache_salt: str | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    request_id: str | None = Field(default=None, min_length=1, max_length=256)

    user: Harmless = None
    metadata: Harmless = None
    safety_identifier: Harmless = None
    prompt_cache_key: Harmless = None
    prompt_cache_retention: Harmless = None

    response_format: Unsupported = None
    structured_outputs: Unsupported = None
    guided_json: Unsupported = None
    guided_regex: Unsupported = None
    guided_choice: Unsupported = None
    guided_grammar: Unsupported = None
    service_tier: Unsupported = None
    store: Unsupported = None
    use_beam_search: Unsupported = None
    length_penalty: Unsupported = None
    early_stopping: Unsupported = None
    truncate_prompt_tokens: Unsupported = None
    kv_transfer_params: Unsupported = None
    vllm_xargs: Unsupported = None
    logprob_token_ids: Unsupported = None
    thinking_token_budget: Unsupported = None
    repetition_detection: Unsupported = None
    stream_interval: Unsupported = None

    max_temperature: ClassVar[float] = 2.0

    @model_validator(mode="after")
    def _refuse_what_is_not_served(self) -> Self:
        for name in self.model_fields_set & UNSUPPORTED.keys():
            value = getattr(self, name)
            harmless, fix = UNSUPPORTED[name]
            if value is not None and not harmless(value):
                raise unsupported(name, fix)
        if self.stream_options is not None and not self.stream:
            raise HeadraceError(
                "stream_options is set and stream is false", fix="Set stream to true", param="stream_options"
            )
        if self.temperature is not None and self.temperature > self.max_temperature:
            raise HeadraceError(
                f"temperature is {self.temperature}", rule="It must be between 0 and 2", param="temperature"
            )
        return self
