"""The body of /invocations as Hugging Face's containers take it: `inputs` and `parameters`."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from headrace.core.errors import HeadraceError
from headrace.server.protocol.base import Body, Harmless, Texts
from headrace.server.protocol.completions import CompletionRequest
from headrace.server.protocol.unsupported import Accepts, Unsupported, asks_for, refuse_unsupported

DEFAULT_MAX_NEW_TOKENS = 100

_SAMPLING = ("temperature", "top_k", "top_p", "min_p")

_UNSUPPORTED: dict[str, tuple[Accepts, str]] = {
    "best_of": (asks_for(1), "Use num_return_sequences and choose among them"),
    "typical_p": (asks_for(1, 1.0), "Use top_p"),
    "truncate": (asks_for(), "Truncate the inputs before sending them"),
    "watermark": (asks_for(False), "Leave it out"),
    "decoder_input_details": (asks_for(False), "Use /v1/completions with echo and logprobs"),
    "top_n_tokens": (asks_for(0), "Use /v1/completions with logprobs"),
    "grammar": (asks_for(), "Leave it out: grammars are not built yet"),
    "adapter_id": (asks_for(), "Leave it out: adapters are not served yet"),
    "max_length": (asks_for(), "Use max_new_tokens"),
    "max_time": (asks_for(), "Use max_new_tokens"),
    "num_beams": (asks_for(1), "Use LLM.beam_search in Python"),
    "no_repeat_ngram_size": (asks_for(0), "Use repetition_penalty or frequency_penalty"),
}
"""Parameter -> (which values ask for nothing special, what to do instead)."""


class GenerateParameters(Body):
    """text-generation-inference's parameters, and those of transformers that mean the same."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | Texts | None = None
    stop_sequences: Texts | None = None
    num_return_sequences: int | None = Field(default=None, ge=1)
    return_full_text: bool | None = None
    details: bool | None = None

    best_of: Unsupported = None
    typical_p: Unsupported = None
    truncate: Unsupported = None
    watermark: Unsupported = None
    decoder_input_details: Unsupported = None
    top_n_tokens: Unsupported = None
    grammar: Unsupported = None
    adapter_id: Unsupported = None
    max_length: Unsupported = None
    max_time: Unsupported = None
    num_beams: Unsupported = None
    no_repeat_ngram_size: Unsupported = None

    def check(self) -> None:
        """Nothing that is not served."""
        refuse_unsupported(self, _UNSUPPORTED, prefix="parameters.")

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn: as `do_sample` says, else if a field of sampling is set."""
        return any(getattr(self, name) is not None for name in _SAMPLING) if self.do_sample is None else self.do_sample


class GenerateRequest(Body):
    """One text or several. `model` is a served name."""

    inputs: str | Annotated[Texts, Field(min_length=1)]
    parameters: GenerateParameters | None = None
    stream: bool = False
    model: str | None = None
    options: Harmless = None

    rules: ClassVar[dict[str, str]] = {"inputs": "It must be a string, or a list of strings that is not empty"}

    def check(self) -> None:
        """A stream has one text."""
        if self.stream and (isinstance(self.inputs, list) or (self.asked.num_return_sequences or 1) > 1):
            raise HeadraceError(
                "stream is true for several texts",
                rule="An event does not say which text its token belongs to",
                fix="Stream one text, or use /v1/completions",
                param="stream",
            )

    @property
    def asked(self) -> GenerateParameters:
        """The parameters, all at their defaults if there are none."""
        return self.parameters or GenerateParameters()

    def as_completion(self) -> "GenerateCompletion":
        """The same wish as a body of /v1/completions. Raises `HeadraceError` for values that make no sense."""
        asked = self.asked
        fields: dict[str, Any] = {
            "model": self.model,
            "prompt": self.inputs,
            "stream": self.stream,
            "max_tokens": asked.max_new_tokens,
            "min_tokens": asked.min_new_tokens,
            "n": asked.num_return_sequences,
            "repetition_penalty": asked.repetition_penalty,
            "frequency_penalty": asked.frequency_penalty,
            "seed": asked.seed,
            "stop": _stops(asked),
            "include_stop_str_in_output": True,
            "logprobs": 0 if asked.details or self.stream else None,
        }
        sampling = {name: getattr(asked, name) for name in _SAMPLING} if asked.samples else {"temperature": 0.0}
        return GenerateCompletion.of({name: value for name, value in (fields | sampling).items() if value is not None})


class GenerateCompletion(CompletionRequest):
    """A body of /v1/completions that came as `inputs` and `parameters`: errors name what the client wrote."""

    default_token_limit: ClassVar[int | None] = DEFAULT_MAX_NEW_TOKENS
    field_names: ClassVar[dict[str, str]] = {"prompt": "inputs", "max_tokens": "max_new_tokens"}


def _stops(asked: GenerateParameters) -> list[str] | None:
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return [*stop, *(asked.stop_sequences or [])] or None
