"""The front's share of a model: what turns text into token ids and back, and the model's own sampling defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ModelText:
    """`eos_token_ids` end a sequence; `sampling_defaults` maps `SamplingParams` fields to the model's own values.

    The defaults are those of generation_config.json, and hold for requests that do not name the field.
    """

    tokenizer: Tokenizer
    eos_token_ids: tuple[int, ...] = ()
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
