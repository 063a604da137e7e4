"""The bodies of /tokenize and /detokenize: vLLM's."""

from headrace.server.protocol.base import Body, Ints
from headrace.server.protocol.chat import ChatTemplateBody


class TokenizeTextRequest(Body):
    """Tokenize a text."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = False


class TokenizeChatRequest(ChatTemplateBody):
    """Tokenize messages, through the chat template."""

    model: str | None = None
    return_token_strs: bool | None = False


class DetokenizeRequest(Body):
    """Turn token ids back into text."""

    model: str | None = None
    tokens: Ints
