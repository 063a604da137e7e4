"""What the bodies of both OpenAI routes have in common: strict types, no unknown field, and fields refused by name."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from headrace.core.errors import HeadraceError
from headrace.server.errors import unknown
from headrace.server.protocol.structure import check_structure
from headrace.server.protocol.unsupported import UNSUPPORTED, Unsupported, refuse_unsupported, unsupported
from headrace.server.protocol.validation import from_validation

MAX_INT64 = 2**63 - 1
MAX_SHOWN_BYTES = 2**16
"""In a body up to this long, errors show the wrong value: it is made into an object for that."""
MAX_STRINGS = {"stop": (64, 2**12), "bad_words": (1_024, 2**16)}
"""Field -> how many strings it may have, and how many characters together."""
MAX_TEMPERATURE = 2
"""OpenAI's."""


Ints = Annotated[list[int], Field(fail_fast=True)]
Texts = Annotated[list[str], Field(fail_fast=True)]
"""Lists end with their first wrong element: pydantic would take a minute to describe every one of a large body."""


class Body(BaseModel):
    """A request body. A field that is not declared is refused by name; JSON types are not converted.

    Undeclared fields are let in to be refused here, because pydantic's own refusal describes every one of them.
    """

    model_config = ConfigDict(
        extra="allow", strict=True, protected_namespaces=(), json_schema_extra={"additionalProperties": False}
    )

    @model_validator(mode="after")
    def _checked(self) -> Self:
        """The one call from pydantic: each costs as much as a field."""
        if self.__pydantic_extra__:
            raise self.undeclared(next(iter(self.__pydantic_extra__)))
        self.check()
        return self

    def check(self) -> None:
        """Raise `HeadraceError` for what the types of the fields let through."""

    def undeclared(self, name: str) -> HeadraceError:
        """The error for a field that is not declared."""
        return unknown(name, type(self).model_fields)

    rules: ClassVar[dict[str, str]] = {}
    """Field -> the rule that an error names, where pydantic would name one of several."""

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The body in `raw` JSON. Raises `HeadraceError` for the first thing that is wrong with it."""
        check_structure(raw)
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise from_validation(error, cls.rules, show_values=len(raw) <= MAX_SHOWN_BYTES) from None

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """The body with these fields. Raises as `parse` does."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise from_validation(error, cls.rules) from None


class StreamOptions(Body):
    """`include_usage` adds a last chunk with the counts; `continuous_usage_stats` puts them into every chunk."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False

    def check(self) -> None:
        """Obfuscation is not served."""
        if self.include_obfuscation:
            raise unsupported("stream_options.include_obfuscation", "Leave it out", param="include_obfuscation")


_LOGIT_BIAS_SCHEMA = {"anyOf": [{"type": "object", "additionalProperties": {"type": "number"}}, {"type": "null"}]}
"""`SamplingParams` checks it, up to the first wrong value."""

Harmless = Annotated[Any, "accepted: it changes nothing in the answer"]


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
    stop: str | Texts | None = None
    logit_bias: Annotated[Any, WithJsonSchema(_LOGIT_BIAS_SCHEMA)] = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: Ints | None = None
    min_tokens: int | None = 0
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    bad_words: Texts | None = None
    allowed_token_ids: Ints | None = None
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
    prompt_cache_options: Harmless = None

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

    rules: ClassVar[dict[str, str]] = {"stop": "It must be a string or a list of strings"}

    def check(self) -> None:
        """Few strings, nothing that is not served, and fields that fit together."""
        super().check()
        for name in MAX_STRINGS:
            if strings := listed(getattr(self, name)):
                _check_few(name, strings)
        refuse_unsupported(self, UNSUPPORTED)
        if self.stream_options is not None and not self.stream:
            raise HeadraceError(
                "stream_options is set and stream is false", fix="Set stream to true", param="stream_options"
            )
        if self.temperature is not None and not 0 <= self.temperature <= MAX_TEMPERATURE:
            what, rule = f"temperature is {self.temperature}", f"It must be between 0 and {MAX_TEMPERATURE}"
            raise HeadraceError(what, rule=rule, fix="Use 0 for greedy decoding", param="temperature")


def listed(strings: str | list[str] | None) -> list[str]:
    """The strings of a field that may be one, several or none."""
    return [strings] if isinstance(strings, str) else strings or []


def _check_few(name: str, strings: list[str]) -> None:
    """They are looked for in every answer's text, whose cost grows with them."""
    max_count, max_characters = MAX_STRINGS[name]
    characters = sum(map(len, strings))
    if len(strings) > max_count or characters > max_characters:
        what = f"{name} has {len(strings)} strings with {characters} characters"
        rule = f"At most {max_count} strings with {max_characters} characters are looked for"
        raise HeadraceError(what, rule=rule, fix="Name fewer or shorter ones", param=name)
