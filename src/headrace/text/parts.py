"""What a tokenizer is made of, whichever file it came from: a loader makes one of these, `Tokenizer` wraps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import tokenizers

DEFAULT_TEMPLATE = "default"
"""The name of the chat template that is used when none is asked for."""

TOOL_TEMPLATE = "tool_use"
"""The name of the chat template that is used, where there is one, when tools are given."""


@dataclass(frozen=True, slots=True)
class TokenizerParts:
    """A loaded tokenizer: `special_tokens` maps Hugging Face's names (bos_token) to tokens, templates go by name."""

    backend: tokenizers.Tokenizer
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    chat_templates: Mapping[str, str] = field(default_factory=dict)
